import type { Topic } from './topics.ts'

/** As in Kafka: a name may occur several times, and the order is kept. */
export type Header = readonly [name: string, value: Uint8Array]

/** A message to publish. */
export interface Outgoing {
  readonly topic: Topic
  /** Messages of one key keep their order. */
  readonly key: string
  readonly value: Uint8Array
  readonly headers: readonly Header[]
}

/** Where the broker holds a message. */
export interface RecordPosition {
  readonly topic: Topic
  readonly partition: number
  readonly offset: number
}

/** A message as it arrives. Only its position can be trusted, since anyone may have written it. */
export interface Delivered extends RecordPosition {
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
  /** By the broker's or the producer's clock, in ms since the epoch. */
  readonly timestampMs: number
  /**
   * Set where the broker holds something that is no message as it should be: a sentence that says why, and the length and
   * hash of the raw bytes. Then `value` is the beginning of these bytes, and there is neither key nor header.
   */
  readonly unreadable?: string
}

/** What counts against the size limit of a topic, in bytes. */
export function sizeBytes(message: Pick<Outgoing, 'key' | 'value' | 'headers'>): number {
  let bytes = Buffer.byteLength(message.key) + message.value.byteLength
  for (const [name, value] of message.headers) bytes += Buffer.byteLength(name) + value.byteLength
  return bytes
}

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })

/** The last value of a header as text. Undefined if there is none. */
export function headerText(message: { readonly headers: readonly Header[] }, name: string): string | undefined {
  const found = message.headers.findLast(([each]) => each === name)
  return found && utf8.decode(found[1])
}
