import type { Delivered } from '@posta/common/messages/message.ts'
import { type Topic, topics } from '@posta/common/messages/topics.ts'
import * as v from 'valibot'
import type { EventFields, NewEvent } from './events.ts'

/** Bytes that are UTF-8 are written as that text, all others in base64: either way they come back exactly as they were. */
const Bytes = v.union([v.string(), v.object({ base64: v.string() })])
type Bytes = v.InferOutput<typeof Bytes>

/** What an event's `text` holds, in this order, as JSON without spaces: the message as received, and where and when. */
const Message = v.object({
  topic: v.picklist(Object.values<Topic>(topics)),
  partition: v.number(),
  offset: v.number(),
  /** When the broker or the producer wrote it. */
  timestampMs: v.number(),
  /** When monitor received it. */
  receivedAtMs: v.number(),
  key: v.nullable(Bytes),
  headers: v.array(v.tuple([v.string(), Bytes])),
  value: Bytes,
})
type Message = v.InferOutput<typeof Message>

/** The event of a message that `decode` could read. */
export function toEvent(delivered: Delivered, receivedAtMs: number): NewEvent {
  const { topic, partition, offset, timestampMs, key, headers, value } = delivered
  const message: Message = {
    topic,
    partition,
    offset,
    timestampMs,
    receivedAtMs,
    key: key && toBytes(key),
    headers: headers.map(([name, bytes]) => [name, toBytes(bytes)]),
    value: toBytes(value ?? new Uint8Array()),
  }
  return { ...fieldsOf(message), text: JSON.stringify(message) }
}

/** What follows from an event's text. @throws Error where `toEvent` did not write the text */
export function fieldsOfText(text: string): EventFields {
  return fieldsOf(readText(text))
}

/** @throws Error where `toEvent` did not write the text */
export function readText(text: string): Message {
  return v.parse(Message, JSON.parse(text))
}

function fieldsOf(message: Message): EventFields {
  const data = dataOf(message)
  const time = Date.parse(header(message, 'ce_time') ?? '')
  // RFC 3339 allows times that do not exist, such as February 31st; the broker's time always does.
  const timeMs = Number.isNaN(time) ? message.timestampMs : time
  return {
    id: header(message, 'ce_id') ?? '',
    type: header(message, 'ce_type') ?? '',
    timeMs,
    minute: minuteOf(timeMs),
    user: stringOf(data.user),
    operation: header(message, 'ce_subject') ?? stringOf(data.operation),
    durationMs: durationMs(data),
    chain: `${message.topic}/${message.partition}`,
  }
}

export function header({ headers }: Message, name: string): string | undefined {
  const found = headers.findLast(([each]) => each === name)
  return found && toText(found[1])
}

/** The message's value, without a check against its type's schema: an old event keeps its fields when a schema changes. */
export function dataOf(message: Message): { readonly [member: string]: unknown } {
  // `decode` ignores a byte order mark too.
  const data: unknown = JSON.parse(toText(message.value).replace(/^\uFEFF/, ''))
  return typeof data === 'object' && data !== null ? { ...data } : {}
}

export function minuteOf(timeMs: number): number {
  return Math.floor(timeMs / 60_000)
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function toBytes(bytes: Uint8Array): Bytes {
  try {
    return utf8.decode(bytes)
  } catch {
    return { base64: Buffer.from(bytes).toString('base64') }
  }
}

function toText(bytes: Bytes): string {
  return typeof bytes === 'string' ? bytes : Buffer.from(bytes.base64, 'base64').toString('utf8')
}

function stringOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** Never negative: gateway's clock, which says when an operation was created, may be ahead of processor's. */
function durationMs({ createdAt, completedAt }: { readonly [member: string]: unknown }): number | undefined {
  const ms = Date.parse(stringOf(completedAt) ?? '') - Date.parse(stringOf(createdAt) ?? '')
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}
