import type { Delivered } from '@posta/common/messages/message.ts'
import { type Topic, topics } from '@posta/common/messages/topics.ts'
import * as v from 'valibot'
import type { EventFields, NewEvent, StoredEvent } from './events.ts'

/** Bytes that are UTF-8 are written as that text, others in base64: either way they come back exactly as they were. */
const Bytes = v.union([v.string(), v.object({ base64: v.string() })])
type Bytes = v.InferOutput<typeof Bytes>

/** The message as received, and where and when: what `text` holds, in this order of members, as JSON without spaces. */
const Message = v.object({
  topic: v.picklist(Object.values<Topic>(topics)),
  partition: v.number(),
  offset: v.number(),
  /** When the broker or the producer wrote it. */
  timestampMs: v.number(),
  /** When monitor had it. */
  receivedAtMs: v.number(),
  key: v.nullable(Bytes),
  headers: v.array(v.tuple([v.string(), Bytes])),
  value: Bytes,
})
type Message = v.InferOutput<typeof Message>

/** The event that a message is. Its value is JSON: `decode` could read it. */
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

/** What follows from the text. @throws where it is no text of `toEvent`. */
export function fieldsOfText(text: string): EventFields {
  return fieldsOf(read(text))
}

function fieldsOf(message: Message): EventFields {
  const data = dataOf(message)
  const time = Date.parse(header(message, 'ce_time') ?? '')
  // Some times that RFC 3339's form allows do not exist; the broker's does.
  const timeMs = Number.isNaN(time) ? message.timestampMs : time
  return {
    id: header(message, 'ce_id') ?? '',
    type: header(message, 'ce_type') ?? '',
    timeMs,
    minute: minuteOf(timeMs),
    user: text(data.user),
    operation: header(message, 'ce_subject') ?? text(data.operation),
    durationMs: durationMs(data),
    chain: `${message.topic}/${message.partition}`,
  }
}

/** An event as clients see it. `data` is the value as received. */
export const ShownEvent = v.object({
  id: v.string(),
  type: v.string(),
  time: v.string(),
  user: v.optional(v.string()),
  operation: v.optional(v.string()),
  topic: v.string(),
  partition: v.number(),
  offset: v.number(),
  receivedAt: v.string(),
  data: v.unknown(),
  traceparent: v.optional(v.string()),
  redrive: v.optional(v.string()),
  chain: v.object({ name: v.string(), seq: v.number(), hash: v.string() }),
  altered: v.optional(
    v.pipe(
      v.literal(true),
      v.metadata({ description: 'Its text was changed and cannot be read: `GET /audit/verify` says where and how.' }),
    ),
  ),
})
export type ShownEvent = v.InferOutput<typeof ShownEvent>

/** An event whose text someone changed so that it cannot be read is shown too: a list must not end at it. */
export function show(event: StoredEvent): ShownEvent {
  const { id, type, user, operation } = event
  const known = {
    id,
    type,
    ...(user !== undefined && { user }),
    ...(operation !== undefined && { operation }),
    chain: { name: event.chain, seq: event.seq, hash: event.hash },
  }
  try {
    return { ...known, ...showMessage(read(event.text)) }
  } catch {
    const time = new Date(event.timeMs).toISOString()
    const [topic = '', partition] = event.chain.split('/')
    return {
      ...known,
      time,
      receivedAt: time,
      topic,
      partition: Number(partition),
      offset: -1,
      data: null,
      altered: true,
    }
  }
}

function showMessage(message: Message) {
  const traceparent = header(message, 'traceparent')
  const redrive = header(message, 'ce_redrive')
  return {
    time: header(message, 'ce_time') ?? '',
    topic: message.topic,
    partition: message.partition,
    offset: message.offset,
    receivedAt: new Date(message.receivedAtMs).toISOString(),
    data: dataOf(message),
    ...(traceparent !== undefined && { traceparent }),
    ...(redrive !== undefined && { redrive }),
  }
}

function read(json: string): Message {
  return v.parse(Message, JSON.parse(json))
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

function header({ headers }: Message, name: string): string | undefined {
  const found = headers.findLast(([each]) => each === name)
  return found && toText(found[1])
}

/** Whatever the schema of the type says today: an old event keeps its fields when a schema changes. */
function dataOf(message: Message): { readonly [member: string]: unknown } {
  // The decoder passes over a byte order mark.
  const data: unknown = JSON.parse(toText(message.value).replace(/^\uFEFF/, ''))
  return typeof data === 'object' && data !== null ? { ...data } : {}
}

export function minuteOf(timeMs: number): number {
  return Math.floor(timeMs / 60_000)
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function durationMs({ createdAt, completedAt }: { readonly [member: string]: unknown }): number | undefined {
  const ms = Date.parse(text(completedAt) ?? '') - Date.parse(text(createdAt) ?? '')
  // Two machines' clocks may differ: an operation that ends before it begins took no time that we know.
  return Number.isNaN(ms) ? undefined : Math.max(0, ms)
}
