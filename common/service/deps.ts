import { type Clock, systemClock } from './clock.ts'

/** What a service takes from outside, besides its configuration. Tests replace it. */
export interface Deps extends Clock {
  /** A new id: a UUID of version 7 (RFC 9562), so that ids sort by time. */
  readonly newId: () => string
  readonly fetch: typeof fetch
}

export const systemDeps: Deps = { ...systemClock, newId: () => Bun.randomUUIDv7(), fetch: globalThis.fetch }
