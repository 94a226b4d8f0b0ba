/** Numbers that look random and follow from the seed alone, so that the same seed gives the same run. */
export interface Random {
  /** At least 0 and less than 1. */
  next(): number
  /** A whole number, both ends included. */
  integer(from: number, to: number): number
  /** @throws RangeError where there are no items. */
  pick<Item>(items: readonly Item[]): Item
  chance(probability: number): boolean
  shuffle<Item>(items: readonly Item[]): Item[]
  /** Another sequence, which follows from this seed and the name. Using it does not change this one. */
  fork(name: string): Random
}

export function createRandom(seed: string | number): Random {
  let state = hashOf(String(seed))

  /** Mulberry32. */
  function next(): number {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  const integer = (from: number, to: number) => from + Math.floor(next() * (to - from + 1))

  return {
    next,
    integer,
    pick(items) {
      const picked = items[integer(0, items.length - 1)]
      if (picked === undefined) throw new RangeError('There is nothing to pick from.')
      return picked
    },
    chance: (probability) => next() < probability,
    shuffle(items) {
      const keyed = items.map((item) => ({ item, key: next() }))
      return keyed.sort((a, b) => a.key - b.key).map(({ item }) => item)
    },
    fork: (name) => createRandom(`${seed}/${name}`),
  }
}

/** FNV-1a. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193)
  return hash | 0
}
