import type { IHeaders, KafkaMessage, Message } from 'kafkajs'
import { type Delivered, type Header, type Outgoing, sizeBytes } from '../../messages/message.ts'
import type { Topic } from '../../messages/topics.ts'

/** A message as kafkajs sends it. */
export function toKafka({ key, value, headers }: Outgoing, partition: number): Message {
  return { partition, key, value: toBuffer(value), headers: toHeaders(headers) }
}

/** A message as kafkajs delivers it. */
export function fromKafka(topic: Topic, partition: number, message: KafkaMessage): Delivered {
  return {
    topic,
    partition,
    offset: Number(message.offset),
    key: message.key,
    value: message.value,
    headers: fromHeaders(message.headers),
    timestampMs: Number(message.timestamp),
  }
}

/** The most that a message takes on the wire: each of its lengths is a number of up to five bytes. */
export function framedBytes(message: Outgoing): number {
  return sizeBytes(message) + 96 + 10 * message.headers.length
}

/** Without a prototype, so that every name is only a name. kafkajs keeps the order of the values of one name. */
function toHeaders(headers: readonly Header[]): IHeaders {
  const byName: Record<string, Buffer[]> = Object.create(null)
  for (const [name, value] of headers) {
    byName[name] ??= []
    byName[name].push(toBuffer(value))
  }
  return byName
}

/**
 * A header without a value (null), which only other programs write, reads as empty. Under a name that every object
 * inherits, such as `constructor`, kafkajs puts the inherited member among the values: only bytes are values.
 */
function fromHeaders(headers: IHeaders | undefined): Header[] {
  return Object.entries(headers ?? {}).flatMap(([name, values]) =>
    [values]
      .flat()
      .filter((value) => value === null || value === undefined || Buffer.isBuffer(value))
      .map((value): Header => [name, value ?? Buffer.alloc(0)]),
  )
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
