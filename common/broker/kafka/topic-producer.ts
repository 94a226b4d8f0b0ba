import { type Message, Partitioners, type Producer } from 'kafkajs'
import type { Outgoing, RecordPosition } from '../../messages/message.ts'
import { type Topic, topicSettings } from '../../messages/topics.ts'
import { backoff } from '../../service/backoff.ts'
import { within } from '../../service/deadline.ts'
import { type Client, type Connect, retry } from './client.ts'
import { isRefusedLogin, protocolError } from './errors.ts'
import { framedBytes, toKafka } from './message-format.ts'
import { partitionOf } from './partition-of.ts'
import { TopicMismatch, type Topics } from './topics.ts'
import { createWorkLoop } from './work-loop.ts'

/** The most that one send may hold of a partition. Kafka limits a batch, and kafkajs makes one batch of it. */
const MAX_SEND_BYTES = 512 * 1024
/** kafkajs takes time for a send that grows with the square of a partition's messages. */
const MAX_SEND_MESSAGES = 1000
const PUBLISH_TIMEOUT_MS = 10_000
/** How long the broker may wait for its replicas. Less than a request's timeout, so that the broker reports it. */
const ACK_TIMEOUT_MS = 4000

/** Kafka's errors that no further attempt changes. */
const NON_RETRIABLE = [
  'MESSAGE_TOO_LARGE',
  'RECORD_LIST_TOO_LARGE',
  'INVALID_RECORD',
  'TOPIC_AUTHORIZATION_FAILED',
  'CLUSTER_AUTHORIZATION_FAILED',
  'POLICY_VIOLATION',
]

export type TopicProducer = ReturnType<typeof createTopicProducer>

interface PendingMessage {
  readonly partition: number
  readonly bytes: number
  readonly message: Message
  resolve(position: RecordPosition): void
  reject(error: unknown): void
}

/**
 * Publishes to one topic, one send at a time: messages that are published during a send go together in the next one.
 * So order is kept, and a busy broker gets few large batches.
 *
 * The producer is idempotent: where kafkajs sends again after a lost answer, the broker recognizes the sequence number
 * and stores the messages once. But after a failed send kafkajs reuses the sequence number; if the broker had stored
 * it, the next message is dropped as a duplicate. So any failure discards the producer, and a new one sends the
 * messages again: they may be stored twice, but none is lost.
 */
export function createTopicProducer(options: {
  readonly connect: Connect
  readonly topics: Topics
  readonly topic: Topic
}) {
  const { connect, topics, topic } = options
  const name = topics.nameOf(topic)
  const closing = new AbortController()
  let pending: PendingMessage[] = []
  let current: { readonly client: Client; readonly producer: Promise<Producer> } | undefined

  const sending = createWorkLoop(
    () => pending.length > 0,
    async () => {
      const { batch, rest } = takeBatch(pending)
      pending = rest
      try {
        const nextOffsets = await deliver(batch)
        for (const { partition, resolve } of batch) {
          const offset = nextOffsets.get(partition) ?? 0
          nextOffsets.set(partition, offset + 1)
          resolve({ topic, partition, offset })
        }
      } catch (error) {
        // The others are rejected too: they would wait as long again for a broker that has just failed for 10 s.
        const reason = closing.signal.aborted ? closing.signal.reason : error
        for (const { reject } of [...batch, ...pending]) reject(reason)
        pending = []
      }
    },
  )

  /**
   * Tries for up to 10 s, unless the error is one that no further attempt changes.
   * @returns the offset of the first message of each partition
   */
  async function deliver(batch: readonly PendingMessage[]): Promise<Map<number, number>> {
    const deadlineMs = performance.now() + PUBLISH_TIMEOUT_MS
    const pauses = backoff({ firstMs: 100, longestMs: 1000 })
    for (;;) {
      closing.signal.throwIfAborted()
      const attempt = new AbortController()
      try {
        const signal = AbortSignal.any([attempt.signal, closing.signal])
        return await within(send(batch, signal), deadlineMs - performance.now(), `Publishing to ${name}`)
      } catch (error) {
        attempt.abort()
        discard()
        if (protocolError(error) === 'UNKNOWN_TOPIC_OR_PARTITION') topics.forget()
        if (!isRetriable(error) || closing.signal.aborted) throw error
        if (performance.now() + pauses.pauseMs >= deadlineMs)
          throw new Error(`Messages for ${name} could not be published within 10 s.`, { cause: error })
      }
      await pauses.pause(closing.signal)
    }
  }

  async function send(batch: readonly PendingMessage[], signal: AbortSignal): Promise<Map<number, number>> {
    current ??= open()
    const [producer] = await Promise.all([current.producer, topics.ensure()])
    // Once the caller has given up, a send would be out of order.
    signal.throwIfAborted()
    const records = await producer.sendBatch({
      acks: -1,
      timeout: ACK_TIMEOUT_MS,
      topicMessages: [{ topic: name, messages: batch.map(({ message }) => message) }],
    })
    const baseOffsets = new Map(records.map(({ partition, baseOffset }) => [partition, Number(baseOffset)]))
    // kafkajs silently skips partitions that are not in its metadata or whose leader has just changed.
    for (const { partition } of batch) {
      const baseOffset = baseOffsets.get(partition)
      if (baseOffset === undefined || !(baseOffset >= 0))
        throw new Error(`The broker did not confirm the messages for partition ${partition} of ${name}.`)
    }
    return baseOffsets
  }

  function open() {
    const client = connect()
    const producer = client.kafka.producer({
      idempotent: true,
      allowAutoTopicCreation: false,
      // It keeps the partition that a message names.
      createPartitioner: Partitioners.DefaultPartitioner,
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
    publish(message: Outgoing): Promise<RecordPosition> {
      const partition = partitionOf(message.key, topicSettings[topic].partitions)
      const { promise, resolve, reject } = Promise.withResolvers<RecordPosition>()
      pending.push({ partition, bytes: framedBytes(message), message: toKafka(message, partition), resolve, reject })
      void sending.run()
      return promise
    },
    async close(graceMs: number): Promise<void> {
      await within(sending.idle(), graceMs, `Publishing to ${name}`).catch(() => {})
      closing.abort(new Error('The broker was closed before this could be published.'))
      discard()
      await sending.idle()
    },
  }
}

/**
 * The messages of the next send, in order, within the limits of each partition; one message always fits. Once a
 * partition has reached a limit, its further messages wait, so that none overtakes another.
 */
export function takeBatch<Each extends Pick<PendingMessage, 'partition' | 'bytes'>>(
  pending: readonly Each[],
): { batch: Each[]; rest: Each[] } {
  const batch: Each[] = []
  const rest: Each[] = []
  const used = new Map<number, { bytes: number; count: number; isFull: boolean }>()
  for (const each of pending) {
    const share = used.get(each.partition) ?? { bytes: 0, count: 0, isFull: false }
    used.set(each.partition, share)
    share.isFull ||= share.count > 0 && (share.bytes + each.bytes > MAX_SEND_BYTES || share.count === MAX_SEND_MESSAGES)
    if (share.isFull) {
      rest.push(each)
    } else {
      share.bytes += each.bytes
      share.count++
      batch.push(each)
    }
  }
  return { batch, rest }
}

function isRetriable(error: unknown): boolean {
  return !(
    error instanceof TopicMismatch ||
    isRefusedLogin(error) ||
    NON_RETRIABLE.includes(protocolError(error) ?? '')
  )
}
