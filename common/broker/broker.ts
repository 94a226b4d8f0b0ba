import type { Delivered, Outgoing, RecordPosition } from '../messages/message.ts'
import type { Group, Topic } from '../messages/topics.ts'

export interface Batch {
  readonly topic: Topic
  readonly partition: number
  /** In order, at least one. */
  readonly messages: readonly Delivered[]
  /**
   * Aborts when this member loses the partition or closes: stop soon, and change nothing more where that is possible. It
   * is one signal per assignment: all batches of the partition have the same one, until it is lost.
   */
  readonly signal: AbortSignal
  /**
   * Moves the group's offset to `next`, the first offset that is not done, after the handler returned `heldFrom`.
   * Never moves back. Does nothing once `signal` has aborted.
   */
  commit(next: number): Promise<void>
}

/**
 * Handles one batch. Resolving means that its effects are durable: the group's offset moves past the batch, or only to
 * `heldFrom` where one is returned (the first offset still in work; `commit` moves it later, and the next batch of the
 * partition is delivered meanwhile). A throw means: deliver again from the group's offset, after a short wait.
 */
// biome-ignore lint/suspicious/noConfusingVoidType: a handler that holds nothing back returns nothing
export type BatchHandler = (batch: Batch) => Promise<{ readonly heldFrom: number } | void>

export interface Subscription {
  /**
   * `running`: a member of the group (or standing by for it). `recovering`: trouble, and trying again by itself.
   * `failed`: gave up; the process should end with a non-zero code.
   */
  state(): 'running' | 'recovering' | 'failed'
  /** Rejects if the subscription gives up; resolves when it has been closed. */
  readonly ended: Promise<void>
  /** Messages that this member's partitions hold beyond the group's offset, by topic and partition, as last known. */
  lag(): readonly { readonly topic: Topic; readonly partition: number; readonly lag: number }[]
  /** Lets running handlers finish (their `signal` aborts after `graceMs`), commits, leaves the group. */
  close(graceMs?: number): Promise<void>
}

/**
 * Carries messages between services.
 *
 * - At least once: a message that was published reaches every group, again after a throw, a kill or a lost partition.
 * - In order: messages of one topic and key are delivered in the order in which they were published. One partition is
 *   handled by one handler at a time; partitions run in parallel.
 * - An offset moves only after the handler resolved, and survives restarts. A group that is new starts at the oldest message.
 * - A member that dies is replaced by another of its group within 5 s where one stands by (Kafka: its session timeout).
 */
export interface Broker {
  /**
   * Resolves when the broker holds every message durably, with the position of each, in the order given. A rejection may
   * leave some of them published. Cuts what it sends so that no batch of a partition exceeds 512 KiB, unless one message
   * does by itself. Rejects with `MessageTooLarge`, before anything is sent, where a message exceeds its topic's limit.
   */
  publish(messages: readonly Outgoing[]): Promise<readonly RecordPosition[]>
  subscribe(group: Group, topics: readonly Topic[], handle: BatchHandler): Promise<Subscription>
  /** Resolves if the broker answers; rejects with the reason within 3 s if not. */
  ping(): Promise<void>
  /** Closes subscriptions as by `close`, finishes publishes under way, and leaves nothing running. */
  close(): Promise<void>
}

export class MessageTooLarge extends Error {
  override name = 'MessageTooLarge'
  constructor(topic: Topic, bytes: number, limitBytes: number) {
    super(`A message for ${topic} has ${bytes} bytes with its headers; at most ${limitBytes} fit there.`)
  }
}
