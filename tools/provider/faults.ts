/**
 * - `slow`: it answers after `ms`.
 * - `busy`, `failing`, `unavailable`: it answers 429 with Retry-After, 500, or 503, and does nothing.
 * - `drop-before`, `drop-after`: it breaks the connection off, before or after it acted.
 * - `silent-after`: it acts, and never answers.
 * - `twice`: it gets the request twice, as from a network that repeats it.
 * - `settle-later`: the payment that it makes is pending for `looks` more looks at it, and for `ms`.
 */
const kinds = [
  'slow',
  'busy',
  'failing',
  'unavailable',
  'drop-before',
  'drop-after',
  'silent-after',
  'twice',
  'settle-later',
] as const
type FaultKind = (typeof kinds)[number]

type Route = 'POST /reservations' | 'DELETE /reservations' | 'POST /payments' | 'GET /payments'

interface Fault {
  readonly kind: FaultKind
  readonly ms: number
  readonly looks: number
}

/** What goes wrong at the provider. */
export interface Faults {
  /**
   * The next request has this fault; with `on`, the next one there. With `times`, as many in a row.
   * @example
   * provider.faults.next('drop-after', { on: 'POST /payments' })
   */
  next(kind: FaultKind, options?: { on?: Route; times?: number; ms?: number; looks?: number }): void
  /** For so long it breaks every connection off before it acts. 0: it is up again. */
  downForMs(ms: number): void
}

/** How often a request has a fault, and how often it is the first of a while for which the provider is down. */
const FAULTY = 0.25
const DOWN = 0.005

/** @param seed faults come at random, which follows from it; without one they come as they are told to */
export function createFaults(seed?: string): Faults & { isDown(): boolean; take(route: string): Fault | undefined } {
  const queue: (Fault & { readonly on: Route | undefined })[] = []
  const random = seed === undefined ? undefined : createRandom(seed)
  let downUntilMs = 0

  function downForMs(ms: number): void {
    downUntilMs = performance.now() + ms
  }

  return {
    next(kind, { on, times = 1, ms = 0, looks = 0 } = {}) {
      for (let n = 0; n < times; n++) queue.push({ kind, on, ms, looks })
    },
    downForMs,
    isDown: () => performance.now() < downUntilMs,
    take(route) {
      const index = queue.findIndex(({ on }) => on === undefined || on === route)
      if (index >= 0) return queue.splice(index, 1)[0]
      if (!random) return undefined
      if (random() < DOWN) downForMs(500 + 2500 * random())
      if (random() >= FAULTY) return undefined
      const kind = kinds[Math.floor(random() * kinds.length)] ?? 'busy'
      return { kind, ms: Math.floor(1000 * random()), looks: Math.floor(4 * random()) }
    },
  }
}

/** Numbers from 0 to 1, without 1, that follow from the seed. */
function createRandom(seed: string): () => number {
  let drawn = 0
  return () => Number(BigInt.asUintN(53, Bun.hash.wyhash(`${seed}/${drawn++}`))) / 2 ** 53
}
