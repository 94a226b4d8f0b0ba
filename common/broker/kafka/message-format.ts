import type { IHeaders, KafkaMessage, Message } from 'kafkajs'
import { type Delivered, type Header, type Outgoing, sizeBytes } from '../../messages/message.ts'
import { type Topic, topicSettings } from '../../messages/topics.ts'
import { FRAMING_BYTES } from './topics.ts'

/** So much is kept of what cannot be read. It is never sent again, so nothing is lost by that. */
const UNREADABLE_BYTES = 64 * 1024

/** A message as kafkajs sends it. */
export function toKafka({ key, value, headers }: Outgoing, partition: number): Message {
  return { partition, key, value: toBuffer(value), headers: toHeaders(headers) }
}

/** A message as `decodeRecordBatches` made it and kafkajs hands it on. */
export function fromKafka(topic: Topic, partition: number, message: KafkaMessage): Delivered {
  const place = { topic, partition, offset: Number(message.offset), timestampMs: Number(message.timestamp) }
  const { raw = Buffer.alloc(0) } = message
  const whole = { ...place, key: message.key, value: message.value, headers: fromHeaders(message.headers) }
  const fault = message.fault ?? excessOf(whole, raw)
  if (fault === undefined) return whole
  const hash = new Bun.CryptoHasher('sha256').update(raw).digest('hex')
  const unreadable = `${fault} The broker holds ${raw.length} bytes of it, with the SHA-256 hash ${hash}.`
  // A copy, since the whole fetch would stay in memory with a part of it.
  return { ...place, key: null, value: Buffer.from(raw.subarray(0, UNREADABLE_BYTES)), headers: [], unreadable }
}

/** What the message has more of than its topic takes, so that the dead letter of any other fits on its topic. */
function excessOf({ topic, key, value, headers }: Delivered, raw: Buffer): string | undefined {
  const { maxMessageBytes, maxHeaders } = topicSettings[topic]
  if (headers.length > maxHeaders)
    return `It is a message with ${headers.length} headers; ${topic} takes ${maxHeaders}.`
  // Names that are not UTF-8 are longer as text.
  const names = headers.reduce((bytes, [name]) => bytes + Buffer.byteLength(name), 0)
  const values = headers.reduce((bytes, [, each]) => bytes + each.byteLength, 0)
  const bytes = Math.max(raw.length, names + values + (key?.byteLength ?? 0) + (value?.byteLength ?? 0))
  if (bytes > maxMessageBytes + FRAMING_BYTES)
    return `It is a message with ${bytes} bytes; ${topic} takes ${maxMessageBytes}.`
  return undefined
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

function fromHeaders(headers: IHeaders = {}): Header[] {
  return Object.entries(headers).flatMap(([name, values]) =>
    [values].flat().flatMap((value): Header[] => (Buffer.isBuffer(value) ? [[name, value]] : [])),
  )
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
