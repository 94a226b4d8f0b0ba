import type { Topic } from './topics.ts'

/** Key and value of a message are bytes, header names text and header values bytes; a name may repeat, in order. */
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

/** A message as it arrives. Anyone may have written it: only its position is certain. */
export interface Delivered extends RecordPosition {
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
  /** When the broker or the producer wrote it, in ms since the epoch. */
  readonly timestampMs: number
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
