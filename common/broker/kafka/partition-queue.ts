import type { Delivered } from '../../messages/message.ts'
import type { Topic } from '../../messages/topics.ts'
import { backoff } from '../../service/backoff.ts'
import type { Logger } from '../../service/log.ts'
import type { BatchHandler } from '../broker.ts'
import { createWorkLoop } from './work-loop.ts'

const MAX_BATCH_MESSAGES = 500
const MAX_BATCH_BYTES = 1024 * 1024
/** Nothing more is fetched of a partition while its messages that are not committed take this much memory. */
const FULL_BYTES = 8 * 1024 * 1024
/** The memory that a message takes besides its bytes. */
const MESSAGE_OVERHEAD_BYTES = 500

/** The messages of one partition while it is assigned to this member, on their way through the handler. */
export interface PartitionQueue {
  readonly topic: Topic
  readonly partition: number
  /** Adds the messages that were fetched next, in order. `endOffset` is the one after the partition's last message. */
  add(messages: readonly Delivered[], endOffset: number): void
  /** Whether to fetch no more for now. `onRoom` is called when that is over. */
  isFull(): boolean
  /** Whether the handler runs or is about to. */
  isBusy(): boolean
  /** Whether the handler's last call threw. */
  isFailing(): boolean
  /** How many messages the partition holds beyond the group's offset. */
  lag(): number
  /** Does not call the handler again. Resolves when it is not running. */
  stop(): Promise<void>
  /** As `stop`, and aborts the batch's signal: whatever the running handler does, the offset stays. */
  abort(): Promise<void>
}

export function createPartitionQueue(options: {
  readonly topic: Topic
  readonly partition: number
  readonly handle: BatchHandler
  /** Moves the group's offset. */
  readonly commit: (offset: number) => Promise<void>
  readonly onRoom: () => void
  /** Settles when the handler of an earlier assignment has ended: a partition has one handler at a time. */
  readonly after: Promise<void> | undefined
  readonly log: Logger
}): PartitionQueue {
  const { topic, partition, handle, commit, onRoom, after, log } = options
  /** The messages from the group's offset on. */
  let queued: Delivered[] = []
  let queuedBytes = 0
  /** The index in `queued` of the next message to deliver. */
  let next = 0
  /** The group's offset; undefined until the first messages come. */
  let committed: number | undefined
  let endOffset = 0
  let failing = false
  const pauses = backoff({ firstMs: 100, longestMs: 2000 })
  /** Aborts when the assignment ends. */
  let assignment = new AbortController()
  const stopping = new AbortController()
  const delivering = createWorkLoop(() => next < queued.length && !stopping.signal.aborted, deliver)

  async function deliver(): Promise<void> {
    await after
    if (stopping.signal.aborted) return
    const { signal } = assignment
    const messages = nextBatch(queued, next)
    try {
      const held = await handle({ topic, partition, messages, signal, commit: (to) => moveTo(to, signal) })
      if (signal.aborted) return
      failing = false
      pauses.reset()
      next += messages.length
      const last = messages.at(-1)
      void moveTo(held ? held.heldFrom : (last?.offset ?? -1) + 1, signal)
    } catch (error) {
      if (signal.aborted) return
      failing = true
      const { pauseMs } = pauses
      log.warn({ err: error, topic, partition, pauseMs }, 'a handler threw: its messages are delivered again')
      await pauses.pause(stopping.signal)
      if (!signal.aborted) next = 0
    }
  }

  async function moveTo(offset: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted || committed === undefined || offset <= committed) return
    committed = offset
    const wasFull = isFull()
    const first = queued.findIndex((message) => message.offset >= offset)
    const removed = queued.splice(0, first < 0 ? queued.length : first)
    for (const message of removed) queuedBytes -= memoryBytes(message)
    // Below 0 while a batch is handled of which messages were removed: its length is added at its end.
    next -= removed.length
    if (wasFull && !isFull()) onRoom()
    await commit(offset)
  }

  function isFull(): boolean {
    return queuedBytes >= FULL_BYTES
  }

  async function stop(): Promise<void> {
    stopping.abort()
    await delivering.idle()
  }

  return {
    topic,
    partition,
    add(messages, newEndOffset) {
      endOffset = newEndOffset
      const [first] = messages
      if (!first) return
      const expected = (queued.at(-1)?.offset ?? (committed ?? 0) - 1) + 1
      if (committed === undefined || first.offset < expected) {
        // The first messages, or the topic was deleted and created anew: then all that is known is of the old one.
        assignment.abort()
        assignment = new AbortController()
        committed = first.offset
        queued = []
        queuedBytes = 0
        next = 0
      }
      for (const message of messages) queuedBytes += memoryBytes(message)
      queued.push(...messages)
      void delivering.run()
    },
    isFull,
    isBusy: delivering.isRunning,
    isFailing: () => failing,
    lag: () => (committed === undefined ? 0 : Math.max(0, endOffset - committed)),
    stop,
    async abort() {
      assignment.abort()
      await stop()
    },
  }
}

/** The messages from index `from` that fit into one batch: at least one. */
function nextBatch(messages: readonly Delivered[], from: number): Delivered[] {
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
