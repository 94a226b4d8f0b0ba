import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves after `ms`, or as soon as `signal` aborts. It never rejects: a loop looks at the signal itself. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {})
}

/** Pauses between attempts, each twice as long as the one before, up to a bound. */
interface Backoff {
  /** The length of the next pause. */
  readonly pauseMs: number
  /** Resolves after the pause, or as soon as `signal` aborts. */
  pause(signal?: AbortSignal): Promise<void>
  /** After a success: the next pause is the first one again. */
  reset(): void
}

/**
 * @example
 * const attempts = backoff({ firstMs: 100, longestMs: 2000 })
 * while (!signal.aborted) await connect().catch(() => attempts.pause(signal))
 */
export function backoff({ firstMs, longestMs }: { firstMs: number; longestMs: number }): Backoff {
  let pauseMs = firstMs
  return {
    get pauseMs() {
      return pauseMs
    },
    async pause(signal) {
      const ms = pauseMs
      pauseMs = Math.min(2 * pauseMs, longestMs)
      await pause(ms, signal)
    },
    reset() {
      pauseMs = firstMs
    },
  }
}
