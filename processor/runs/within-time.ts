import { unlessAborted, within } from '@posta/common/service/deadline.ts'

/** What `setTimeout` can wait: a longer time would end at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1

/** @throws what `work` throws; a TimeoutError after `timeoutMs`; the reason of `closing` once it aborts */
export async function withinTime(
  timeoutMs: number,
  closing: AbortSignal,
  work: (signal: AbortSignal) => Promise<unknown>,
): Promise<unknown> {
  const timer = new AbortController()
  const signal = AbortSignal.any([timer.signal, closing])
  signal.throwIfAborted()
  try {
    // Work need not heed the signal.
    return await within(unlessAborted(work(signal), signal), Math.min(timeoutMs, LONGEST_TIMER_MS), 'The attempt')
  } finally {
    timer.abort()
  }
}
