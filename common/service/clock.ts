/** The time, as whoever needs it is given it: tests hold it in their hands. */
export interface Clock {
  /** The wall clock, in ms since the epoch. */
  readonly now: () => number
  /** A clock that nobody sets back, in ms. Compare its values within one process only. */
  readonly monotonicMs: () => number
}

export const systemClock: Clock = { now: Date.now, monotonicMs: () => performance.now() }
