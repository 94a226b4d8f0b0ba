import { setTimeout as sleep } from 'node:timers/promises'
import type { Delivered } from '../../messages/message.ts'
import type { Topic } from '../../messages/topics.ts'
import type { Logger } from '../../service/log.ts'
import type { BatchHandler } from '../broker.ts'

const MAX_BATCH_MESSAGES = 500
const MAX_BATCH_BYTES = 1024 * 1024
/** What may be kept of a partition, waiting or delivered beyond a held offset. Above it no more is fetched. */
const FULL_BYTES = 8 * 1024 * 1024
/** What a message takes in memory besides its bytes. */
const MESSAGE_OVERHEAD_BYTES = 500
const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 2000

/** One partition while it is assigned to this member: what was fetched of it, on its way through the handler. */
export interface Feed {
  readonly topic: Topic
  readonly partition: number
  /** Takes what was fetched next, in order. `end` is the offset after the partition's last message. */
  offer(messages: readonly Delivered[], end: number): void
  /** So much waits that no more should be fetched; `onRoom` runs once that is over. */
  full(): boolean
  busy(): boolean
  /** Whether the handler threw when it was last called. */
  troubled(): boolean
  lag(): number
  /** Calls the handler no more. Resolves when it is not running. */
  stop(): Promise<void>
  /** As `stop`, and tells a running handler to end; its result counts no more. */
  abort(): Promise<void>
}

export function createFeed(options: {
  readonly topic: Topic
  readonly partition: number
  readonly handle: BatchHandler
  /** Moves the group's offset. */
  readonly commit: (offset: number) => Promise<void>
  readonly onRoom: () => void
  /** Settles when an earlier handler of this partition has ended: there is one at a time. */
  readonly after: Promise<void> | undefined
  readonly log: Logger
}): Feed {
  const { topic, partition, handle, commit, onRoom, after, log } = options
  /** What was fetched and is not behind the group's offset. */
  let kept: Delivered[] = []
  let keptBytes = 0
  /** Index in `kept` of what to deliver next. */
  let next = 0
  /** The group's offset, once it is known. */
  let done: number | undefined
  let end = 0
  let failures = 0
  let working: Promise<void> | undefined
  /** Ends with the assignment. */
  let life = new AbortController()
  const stopping = new AbortController()

  async function work(): Promise<void> {
    try {
      await after
      while (!stopping.signal.aborted && next < kept.length) await deliver()
    } finally {
      // In the very step that finds nothing to deliver: what comes in the next one begins anew.
      working = undefined
    }
  }

  async function deliver(): Promise<void> {
    const { signal } = life
    const messages = takeBatch(kept, next)
    try {
      const held = await handle({ topic, partition, messages, signal, commit: (to) => moveTo(to, signal) })
      if (signal.aborted) return
      failures = 0
      next += messages.length
      const last = messages.at(-1)
      void moveTo(held ? held.heldFrom : (last?.offset ?? -1) + 1, signal)
    } catch (error) {
      if (signal.aborted) return
      const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** failures, LONGEST_PAUSE_MS)
      failures++
      log.warn({ err: error, topic, partition, pauseMs }, 'a handler threw: its messages are delivered again')
      await sleep(pauseMs, undefined, { signal: stopping.signal }).catch(() => {})
      if (!signal.aborted) next = 0
    }
  }

  async function moveTo(offset: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted || done === undefined || offset <= done) return
    done = offset
    const wasFull = full()
    const firstKept = kept.findIndex((message) => message.offset >= offset)
    const dropped = kept.splice(0, firstKept < 0 ? kept.length : firstKept)
    for (const message of dropped) keptBytes -= memoryBytes(message)
    // Below 0 while a batch is handled of which messages were dropped: its length is added at its end.
    next -= dropped.length
    if (wasFull && !full()) onRoom()
    await commit(offset)
  }

  function full(): boolean {
    return keptBytes >= FULL_BYTES
  }

  async function stop(): Promise<void> {
    stopping.abort()
    await working
  }

  return {
    topic,
    partition,
    offer(messages, newEnd) {
      end = newEnd
      const [first] = messages
      if (!first) return
      const expected = (kept.at(-1)?.offset ?? (done ?? 0) - 1) + 1
      if (done === undefined || first.offset < expected) {
        // The partition's first messages; or the partition was made anew, and what is known of the old one is void.
        life.abort()
        life = new AbortController()
        done = first.offset
        kept = []
        keptBytes = 0
        next = 0
      }
      for (const message of messages) keptBytes += memoryBytes(message)
      kept.push(...messages)
      if (!stopping.signal.aborted) working ??= work()
    },
    full,
    busy: () => working !== undefined,
    troubled: () => failures > 0,
    lag: () => (done === undefined ? 0 : Math.max(0, end - done)),
    stop,
    async abort() {
      life.abort()
      await stop()
    },
  }
}

function takeBatch(messages: readonly Delivered[], from: number): Delivered[] {
  let bytes = 0
  let to = from
  for (let message = messages[to]; message && to - from < MAX_BATCH_MESSAGES; message = messages[to]) {
    bytes += payloadBytes(message)
    if (to > from && bytes > MAX_BATCH_BYTES) break
    to++
  }
  return messages.slice(from, to)
}

function memoryBytes(message: Delivered): number {
  return payloadBytes(message) + MESSAGE_OVERHEAD_BYTES
}

function payloadBytes({ key, value, headers }: Delivered): number {
  let bytes = (key?.byteLength ?? 0) + (value?.byteLength ?? 0)
  for (const [name, each] of headers) bytes += name.length + each.byteLength
  return bytes
}
