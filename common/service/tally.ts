/** How often something happened, and between which times, in ms since the epoch. */
export interface Counted<Item> {
  readonly item: Item
  readonly count: number
  readonly fromMs: number
  readonly toMs: number
}

/** Counts things that are alike, until they are taken: a flood of them is little memory, and each of them counts. */
export interface Tally<Item> {
  add(item: Item): void
  /** What was counted since the last time. */
  take(): readonly Counted<Item>[]
}

/** A flood from very many networks leaves no more than this at once. */
const MAX_KEPT = 100

/**
 * Items are alike whose JSON is the same. Once 100 different ones are counted, others count as what `withoutDetails` makes of
 * them, of which there must be few.
 */
export function createTally<Item>(withoutDetails: (item: Item) => Item, now: () => number): Tally<Item> {
  let kept = new Map<string, Counted<Item>>()
  return {
    add(item) {
      const isKnown = kept.has(JSON.stringify(item))
      const counted = isKnown || kept.size < MAX_KEPT ? item : withoutDetails(item)
      const key = JSON.stringify(counted)
      const nowMs = now()
      const { count, fromMs } = kept.get(key) ?? { count: 0, fromMs: nowMs }
      kept.set(key, { item: counted, count: count + 1, fromMs, toMs: nowMs })
    },
    take() {
      const taken = [...kept.values()]
      kept = new Map()
      return taken
    },
  }
}
