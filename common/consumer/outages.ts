import { backoff } from '../service/backoff.ts'
import type { Logger } from '../service/log.ts'

const LONGEST_PAUSE_MS = 2000

/** While the broker or a store is failing, work on messages waits: that is no verdict on a message. */
export interface Outages {
  /** Repeats `work`, after growing pauses, until it does not throw. @throws once `signal` has aborted */
  waitOut<Result>(work: () => Promise<Result>, signal: AbortSignal): Promise<Result>
  /** Whether any work waits. */
  ongoing(): boolean
}

export function createOutages({ log, firstPauseMs }: { log: Logger; firstPauseMs: number }): Outages {
  const waiting = new Set<object>()
  return {
    ongoing: () => waiting.size > 0,
    async waitOut(work, signal) {
      const pauses = backoff({ firstMs: firstPauseMs, longestMs: LONGEST_PAUSE_MS })
      try {
        for (;;) {
          signal.throwIfAborted()
          try {
            return await work()
          } catch (error) {
            waiting.add(pauses)
            log.warn({ err: error, pauseMs: pauses.pauseMs }, 'the broker or a store is failing: the partition waits')
            await pauses.pause(signal)
          }
        }
      } finally {
        waiting.delete(pauses)
      }
    },
  }
}
