import { setTimeout as sleep } from 'node:timers/promises'
import type { IHeaders, Message, Producer } from 'kafkajs'
import { type Header, type Outgoing, type RecordPosition, sizeBytes } from '../../messages/message.ts'
import { type Topic, topicSettings } from '../../messages/topics.ts'
import { within } from '../../service/deadline.ts'
import { MessageTooLarge } from '../broker.ts'
import { type Client, type Connect, retry } from './client.ts'
import { isRefusedLogin, protocolError } from './errors.ts'
import { partitionOf } from './partition-of.ts'
import { FRAMING_BYTES, TopicMismatch, type Topics } from './topics.ts'

/** What one send may hold of a partition. Kafka's limit is on the batch, and kafkajs makes one batch of it. */
const MAX_SEND_BYTES = 512 * 1024
/** kafkajs' time for a send grows with the square of the messages of a partition. */
const MAX_SEND_MESSAGES = 1000
const PUBLISH_TIMEOUT_MS = 10_000
/** How long the broker may wait for its replicas: it says that they were late before the client stops waiting for it. */
const ACK_TIMEOUT_MS = 4000
const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 1000

export interface Publisher {
  publish(messages: readonly Outgoing[]): Promise<readonly RecordPosition[]>
  /** Refuses what comes from now on; waits for what is under way, at most `graceMs`. */
  close(graceMs: number): Promise<void>
}

/** A call of `publish`, as far as it concerns one topic. */
interface Call {
  /** By index within the call. */
  readonly places: RecordPosition[]
  missing: number
  resolve(places: readonly RecordPosition[]): void
  reject(error: unknown): void
}

/** A message that waits for its send. */
export interface Waiting {
  readonly partition: number
  readonly bytes: number
}

interface Entry extends Waiting {
  readonly message: Message
  readonly call: Call
  readonly index: number
}

export function createPublisher(options: { readonly connect: Connect; readonly topics: Topics }): Publisher {
  const lanes = new Map<Topic, Lane>()
  let closed = false

  function laneOf(topic: Topic): Lane {
    const lane = lanes.get(topic) ?? createLane({ ...options, topic })
    lanes.set(topic, lane)
    return lane
  }

  return {
    async publish(messages) {
      if (closed) throw new Error('The broker has been closed: nothing more can be published.')
      for (const message of messages) {
        const bytes = sizeBytes(message)
        const limitBytes = topicSettings[message.topic].maxMessageBytes
        if (bytes > limitBytes || framedBytes(message) > limitBytes + FRAMING_BYTES)
          throw new MessageTooLarge(message.topic, bytes, limitBytes)
      }
      const places: RecordPosition[] = []
      const byTopic = Map.groupBy(messages.entries(), ([, message]) => message.topic)
      await Promise.all(
        byTopic.entries().map(async ([topic, entries]) => {
          const placed = await laneOf(topic).publish(entries.map(([, message]) => message))
          for (const [at, [index]] of entries.entries()) {
            const place = placed[at]
            if (place) places[index] = place
          }
        }),
      )
      return places
    },

    async close(graceMs) {
      closed = true
      await Promise.all(lanes.values().map((lane) => lane.close(graceMs)))
    },
  }
}

interface Lane {
  publish(messages: readonly Outgoing[]): Promise<readonly RecordPosition[]>
  close(graceMs: number): Promise<void>
}

/**
 * The way to one topic. One send is under way at a time, and what is published meanwhile goes out together with the next,
 * so that order holds and a busy broker gets few large batches. A topic in trouble holds up no other.
 *
 * Its producer is idempotent: what kafkajs sends again after a lost answer, the broker recognizes by its sequence number
 * and stores once, in its place. But kafkajs counts a send that failed in the end as never made, although the broker may
 * have it; the next one, under the same number, would then be taken for a copy and dropped, with an answer that says
 * stored. So after any failure the producer is thrown away, and what was in doubt is sent again by a new one: at worst
 * twice, never not at all.
 */
function createLane(options: { readonly connect: Connect; readonly topics: Topics; readonly topic: Topic }): Lane {
  const { connect, topics, topic } = options
  const name = topics.nameOf(topic)
  let waiting: Entry[] = []
  let working: Promise<void> | undefined
  const closing = new AbortController()
  let current: { readonly client: Client; readonly producer: Promise<Producer> } | undefined

  async function work(): Promise<void> {
    // What is published in this same turn of the event loop goes along.
    await Promise.resolve()
    while (waiting.length > 0) {
      const { now, later } = cutSend(waiting)
      waiting = later
      try {
        place(now, await deliver(now))
      } catch (error) {
        // Those behind would wait as long again, for a broker that has just been given all the time there is.
        const reason = closing.signal.aborted ? closing.signal.reason : error
        for (const { call } of [...now, ...waiting]) call.reject(reason)
        waiting = []
      }
    }
    // In the very step that finds nothing waiting: what comes in the next one begins anew.
    working = undefined
  }

  function place(sent: readonly Entry[], baseOffsets: ReadonlyMap<number, number>): void {
    const next = new Map(baseOffsets)
    for (const { partition, call, index } of sent) {
      const offset = next.get(partition) ?? 0
      next.set(partition, offset + 1)
      call.places[index] = { topic, partition, offset }
      call.missing--
      if (call.missing === 0) call.resolve(call.places)
    }
  }

  /** Where the broker put the first message of each partition. Tries again, within a bound, where that may help. */
  async function deliver(entries: readonly Entry[]): Promise<ReadonlyMap<number, number>> {
    const deadlineMs = performance.now() + PUBLISH_TIMEOUT_MS
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      const attempt = new AbortController()
      try {
        const leftMs = deadlineMs - performance.now()
        const signal = AbortSignal.any([attempt.signal, closing.signal])
        return await within(send(entries, signal), leftMs, `Publishing to ${name}`)
      } catch (error) {
        attempt.abort()
        discard()
        if (protocolError(error) === 'UNKNOWN_TOPIC_OR_PARTITION') topics.forget()
        if (!mayPass(error) || closing.signal.aborted) throw error
        if (performance.now() + pauseMs >= deadlineMs)
          throw new Error(`The broker did not take what was to go to ${name}, for 10 s.`, { cause: error })
      }
      await sleep(pauseMs, undefined, { signal: closing.signal })
    }
  }

  async function send(entries: readonly Entry[], signal: AbortSignal): Promise<ReadonlyMap<number, number>> {
    await topics.ensure()
    // Whoever waited has given up meanwhile: sent now, it would come out of order.
    signal.throwIfAborted()
    current ??= open()
    const producer = await current.producer
    signal.throwIfAborted()
    const messages = entries.map(({ message }) => message)
    const records = await producer.sendBatch({
      acks: -1,
      timeout: ACK_TIMEOUT_MS,
      topicMessages: [{ topic: name, messages }],
    })
    const baseOffsets = new Map(records.map(({ partition, baseOffset }) => [partition, Number(baseOffset)]))
    // kafkajs leaves out, in silence, partitions that its metadata does not know or that changed their leader meanwhile.
    for (const { partition } of entries) {
      const baseOffset = baseOffsets.get(partition)
      if (baseOffset === undefined || !(baseOffset >= 0))
        throw new Error(`The broker did not say where it put what was sent to ${name}/${partition}.`)
    }
    return baseOffsets
  }

  function open() {
    const client = connect()
    const producer = client.kafka.producer({
      idempotent: true,
      allowAutoTopicCreation: false,
      createPartitioner:
        () =>
        ({ message }) =>
          message.partition ?? 0,
      retry: { ...retry, retries: 5 },
    })
    return { client, producer: producer.connect().then(() => producer) }
  }

  function discard(): void {
    current?.client.kill()
    current?.producer.catch(() => {})
    current = undefined
  }

  return {
    publish(messages) {
      const { promise, resolve, reject } = Promise.withResolvers<readonly RecordPosition[]>()
      const call: Call = { places: [], missing: messages.length, resolve, reject }
      for (const [index, message] of messages.entries()) waiting.push(entryOf(message, call, index))
      working ??= work()
      return promise
    },
    async close(graceMs) {
      await within(working ?? Promise.resolve(), graceMs, `Publishing to ${name}`).catch(() => {})
      closing.abort(new Error('The broker was closed before this could be published.'))
      discard()
      await working
    },
  }
}

function entryOf(message: Outgoing, call: Call, index: number): Entry {
  const partition = partitionOf(message.key, topicSettings[message.topic].partitions)
  const { key, value, headers } = message
  return {
    message: { partition, key, value: toBuffer(value), headers: headersOf(headers) },
    partition,
    bytes: framedBytes(message),
    call,
    index,
  }
}

/** What goes into the next send, in order; a partition that is full in it keeps all that follows for later. */
export function cutSend<Each extends Waiting>(waiting: readonly Each[]): { now: Each[]; later: Each[] } {
  const now: Each[] = []
  const later: Each[] = []
  const used = new Map<number, { bytes: number; count: number; full: boolean }>()
  for (const each of waiting) {
    const share = used.get(each.partition) ?? { bytes: 0, count: 0, full: false }
    used.set(each.partition, share)
    share.full ||= share.count > 0 && (share.bytes + each.bytes > MAX_SEND_BYTES || share.count === MAX_SEND_MESSAGES)
    if (share.full) {
      later.push(each)
    } else {
      share.bytes += each.bytes
      share.count++
      now.push(each)
    }
  }
  return { now, later }
}

/** At most what a message takes on the wire: each length is a number of up to five bytes. */
function framedBytes(message: Outgoing): number {
  return sizeBytes(message) + 96 + 10 * message.headers.length
}

/** Errors that stay as they are however often one tries. */
const LASTING = [
  'MESSAGE_TOO_LARGE',
  'RECORD_LIST_TOO_LARGE',
  'INVALID_RECORD',
  'TOPIC_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'POLICY_VIOLATION',
]

function mayPass(error: unknown): boolean {
  return !(error instanceof TopicMismatch || isRefusedLogin(error) || LASTING.includes(protocolError(error) ?? ''))
}

/** Without a prototype, so that no name has a meaning of its own. kafkajs keeps the order of a name's values. */
function headersOf(headers: readonly Header[]): IHeaders {
  const byName: Record<string, Buffer[]> = Object.create(null)
  for (const [name, value] of headers) {
    byName[name] ??= []
    byName[name].push(toBuffer(value))
  }
  return byName
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
