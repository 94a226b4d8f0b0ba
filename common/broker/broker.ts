import type { Group, Topic } from '../messages/topics.ts'

/** Key and value of a message are bytes, header names text and header values bytes; a name may repeat, in order. */
export type Header = readonly [name: string, value: Uint8Array]

export interface Outgoing {
  readonly topic: Topic
  /** Messages of one key keep their order. */
  readonly key: string
  readonly value: Uint8Array
  readonly headers: readonly Header[]
}

/** Where the broker holds a message. */
export interface Placed {
  readonly topic: Topic
  readonly partition: number
  readonly offset: number
}

/** A message as it arrives. Anyone may have written it: nothing but its place is certain. */
export interface Delivered extends Placed {
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
  /** When the broker or the producer wrote it, in ms since the epoch. */
  readonly timestampMs: number
}

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
   * Resolves when the broker holds every message durably, with the place of each, in the order given. A rejection may
   * leave some of them published. Cuts what it sends so that no batch of a partition exceeds 512 KiB, unless one message
   * does by itself. Rejects with `MessageTooLarge`, before anything is sent, where a message exceeds its topic's limit.
   */
  publish(messages: readonly Outgoing[]): Promise<readonly Placed[]>
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

/** The bytes that count against a topic's limit. */
export function sizeBytes(message: Pick<Outgoing, 'key' | 'value' | 'headers'>): number {
  let bytes = Buffer.byteLength(message.key) + message.value.byteLength
  for (const [name, value] of message.headers) bytes += Buffer.byteLength(name) + value.byteLength
  return bytes
}

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })

/** The last value of a header as text, as a reader of single-valued headers takes it. */
export function headerText(message: { readonly headers: readonly Header[] }, name: string): string | undefined {
  const found = message.headers.findLast(([each]) => each === name)
  return found && utf8.decode(found[1])
}
