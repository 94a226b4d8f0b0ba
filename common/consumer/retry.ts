import type { Delivered } from '../messages/message.ts'
import { pause } from '../service/backoff.ts'
import type { Clock } from '../service/clock.ts'
import type { Logger } from '../service/log.ts'
import type { Received, Verdict } from './handler.ts'

const MAX_ATTEMPTS = 5
const MAX_RETRY_MS = 10_000
const MAX_HELD = 1000

/**
 * The messages of one partition that are retried. Each holds its key: later messages of the key wait behind it. It is
 * attempted at most 5 times, the last time at most 10 s after the first attempt failed; the pauses grow fourfold. Once it
 * is done or dead, the next message of its key is handled.
 */
export interface Retries<Item> {
  /** Puts a message behind those of its key. False if its key is not held. */
  enqueue(received: Received<Item>): boolean
  /** Holds the key of a message that failed for `reason`. Call the function that it returns to begin the retries. */
  hold(received: Received<Item>, reason: string): () => void
  /** The offset of the oldest message that is held; `Infinity` without one. */
  oldest(): number
  /** Resolves once no more than 1000 messages are held. @throws once the partition is lost */
  room(): Promise<void>
}

export function createRetries<Item>(options: {
  /** As `setAside`, it waits while the broker or a store fails, and throws once the partition is lost. */
  readonly handle: (received: Received<Item>) => Promise<Verdict>
  readonly setAside: (received: Received<Item>, reason: string) => Promise<void>
  readonly onRetry: (message: Delivered) => void
  /** Called when a key is held no longer. */
  readonly onReleased: () => Promise<void>
  /** Aborts when the partition is lost. */
  readonly signal: AbortSignal
  readonly firstPauseMs: number
  readonly deps: Pick<Clock, 'monotonicMs'>
  readonly log: Logger
}): Retries<Item> {
  const { handle, setAside, onRetry, onReleased, signal, firstPauseMs, deps, log } = options
  /** By key, the oldest message first. */
  const queues = new Map<string, Received<Item>[]>()

  async function workOff(key: string, queue: Received<Item>[], firstReason: string): Promise<void> {
    let verdict: Verdict | undefined = { retry: firstReason }
    for (let first = queue[0]; first; first = queue[0]) {
      verdict ??= await handle(first)
      if ('retry' in verdict) verdict = await retry(first, verdict.retry)
      if ('dead' in verdict) await setAside(first, verdict.dead)
      verdict = undefined
      queue.shift()
    }
    // Synchronously with the empty check, so that nothing is put into a queue that is no longer worked off.
    queues.delete(key)
    await onReleased()
  }

  async function retry(received: Received<Item>, firstReason: string): Promise<Verdict> {
    const deadlineMs = deps.monotonicMs() + MAX_RETRY_MS
    let reason = firstReason
    let attempts = 1
    while (attempts < MAX_ATTEMPTS && deps.monotonicMs() < deadlineMs) {
      await pause(Math.min(firstPauseMs * 4 ** (attempts - 1), deadlineMs - deps.monotonicMs()), signal)
      signal.throwIfAborted()
      onRetry(received.message)
      const verdict = await handle(received)
      if (!('retry' in verdict)) return verdict
      reason = verdict.retry
      attempts++
    }
    return { dead: `${reason} (given up after ${attempts} attempts)` }
  }

  return {
    enqueue(received) {
      const queue = queues.get(keyOf(received.message))
      queue?.push(received)
      return queue !== undefined
    },
    hold(received, reason) {
      const key = keyOf(received.message)
      const queue = [received]
      queues.set(key, queue)
      return () =>
        void workOff(key, queue, reason).catch((error: unknown) => {
          // The next commit moves the offset, or what was done is delivered again.
          if (!signal.aborted) log.warn({ err: error }, 'an offset could not be committed yet')
        })
    },
    oldest: () => Math.min(...queues.values().flatMap(([first]) => (first ? [first.message.offset] : []))),
    async room() {
      while (queues.values().reduce((held, queue) => held + queue.length, 0) > MAX_HELD) {
        await pause(firstPauseMs, signal)
        signal.throwIfAborted()
      }
    },
  }
}

/** A message without a key has no order to keep: it is a key of its own. */
function keyOf({ key, offset }: Delivered): string {
  return key ? Buffer.from(key).toString('latin1') : `/${offset}`
}
