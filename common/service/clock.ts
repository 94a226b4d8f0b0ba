/** The time. Tests pass in their own. */
export interface Clock {
  /** The wall clock, in ms since the epoch. */
  readonly now: () => number
  /** A clock that is never set, in ms. Its values can be compared within one process only. */
  readonly monotonicMs: () => number
}

export const systemClock: Clock = { now: Date.now, monotonicMs: () => performance.now() }
