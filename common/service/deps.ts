import type { openBroker } from '../broker/open.ts'

/** What a service takes from outside, apart from its configuration, so that tests can hold it in their hands. */
export interface Deps {
  /** The wall clock, in ms since the epoch. */
  readonly now: () => number
  /** A clock that no one sets back, in ms; comparable within this process alone. */
  readonly monotonicMs: () => number
  /** A new id: a UUID of version 7 (RFC 9562), so that ids sort by time. */
  readonly newId: () => string
  readonly fetch: typeof fetch
  /** In the place of the one that `BROKER_URL` names: for who wraps it. */
  readonly openBroker?: typeof openBroker
}

export const systemDeps: Deps = {
  now: Date.now,
  monotonicMs: () => performance.now(),
  newId: () => Bun.randomUUIDv7(),
  fetch: globalThis.fetch,
}
