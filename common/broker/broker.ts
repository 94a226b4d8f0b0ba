import { type Delivered, type Outgoing, type RecordPosition, sizeBytes } from '../messages/message.ts'
import { type Group, type Topic, topicSettings } from '../messages/topics.ts'

/**
 * Carries messages between services.
 *
 * - At least once: a published message reaches every group, and reaches it again after a throw, a kill or a lost partition.
 * - In order: messages of one topic and key are delivered in the order in which they were published. A partition has one
 *   handler at a time; partitions run in parallel.
 * - The committed offset moves only after the handler resolved, and survives restarts. A new group begins at the oldest
 *   message.
 * - A member that dies is replaced by one that stands by within 5 s (on Kafka: within its session timeout).
 * @example
 * const broker = openBroker({ url: 'file:data/broker.db', clientId: 'processor', log, deps: systemDeps })
 * await broker.subscribe(groups.processor, [topics.requests], async ({ messages }) => store(messages))
 * const [position] = await broker.publish([{ topic: topics.requests, key: 'ana', value, headers: [] }])
 */
export interface Broker {
  /**
   * Resolves, with the position of each message in the order given, when the broker holds all of them durably. A rejection
   * may leave some of them published. No batch of a partition exceeds 512 KiB, unless one message does by itself.
   * @throws MessageTooLarge, before anything is sent, where a message has more bytes or headers than its topic takes
   */
  publish(messages: readonly Outgoing[]): Promise<readonly RecordPosition[]>
  subscribe(group: Group, topics: readonly Topic[], handle: BatchHandler): Promise<Subscription>
  /** Resolves if the broker answers. Rejects with the reason within 3 s if not. */
  ping(): Promise<void>
  /** Closes the subscriptions, finishes publishes under way, and leaves nothing running. */
  close(): Promise<void>
}

/**
 * Handles one batch. Resolve once its effects are durable: the committed offset then moves past the batch. Or resolve with
 * `heldFrom`, the first offset that is not done: the committed offset moves there, the next batch is delivered, and `commit`
 * moves it on later. After a throw everything from the committed offset is delivered again, after a short pause.
 */
// biome-ignore lint/suspicious/noConfusingVoidType: a handler that holds nothing back returns nothing
export type BatchHandler = (batch: Batch) => Promise<{ readonly heldFrom: number } | void>

export interface Batch {
  readonly topic: Topic
  readonly partition: number
  /** In order, at least one. Some may be `unreadable`: whatever a broker holds, what comes after it is delivered. */
  readonly messages: readonly Delivered[]
  /**
   * Aborts when this member loses the partition or closes: stop soon, and change nothing more where that is possible. It
   * belongs to one assignment of the partition: all its batches have the same signal, and nothing else has it.
   */
  readonly signal: AbortSignal
  /**
   * Moves the committed offset to `next`, the first offset that is not done, once the handler returned `heldFrom`. Never
   * moves it back. Does nothing once `signal` has aborted.
   */
  commit(next: number): Promise<void>
}

export interface Subscription {
  /**
   * - `running`: a member of the group, or standing by.
   * - `recovering`: failing, and trying again by itself.
   * - `failed`: gave up. The process should end with a non-zero code.
   */
  state(): 'running' | 'recovering' | 'failed'
  /** Rejects if the subscription gives up. Resolves after `close`. */
  readonly ended: Promise<void>
  /** By topic and partition of this member: how many messages lie beyond the committed offset, as last known. */
  lag(): readonly { readonly topic: Topic; readonly partition: number; readonly lag: number }[]
  /** Lets running handlers finish (their `signal` aborts after `graceMs`), commits and leaves the group. */
  close(graceMs?: number): Promise<void>
}

export class MessageTooLarge extends Error {
  override name = 'MessageTooLarge'
}

/** Why the message does not fit on its topic, as a sentence; undefined where it does. */
export function tooLarge(message: Outgoing): string | undefined {
  const { topic, headers } = message
  const bytes = sizeBytes(message)
  const { maxMessageBytes, maxHeaders } = topicSettings[topic]
  if (bytes > maxMessageBytes)
    return `A message for ${topic} has ${bytes} bytes with its headers; at most ${maxMessageBytes} fit there.`
  if (headers.length > maxHeaders)
    return `A message for ${topic} has ${headers.length} headers; at most ${maxHeaders} fit there.`
  return undefined
}

/** @throws MessageTooLarge where the message does not fit on its topic */
export function refuseTooLarge(message: Outgoing): void {
  const detail = tooLarge(message)
  if (detail !== undefined) throw new MessageTooLarge(detail)
}
