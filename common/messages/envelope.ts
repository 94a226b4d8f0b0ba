import * as v from 'valibot'
import { Problem } from '../service/problem.ts'
import { dataschema, type MessageData, type MessageType, messages, sourceOf } from './events.ts'
import { type Delivered, type Header, headerText, type Outgoing, sizeBytes } from './message.ts'
import type { Topic } from './topics.ts'

/** More does not enter the outbox. The topics' limits are higher, to leave room for headers that others add. */
const MAX_MESSAGE_BYTES = 256 * 1024

/** A CloudEvents 1.0 event. `data` has the schema of its type. */
export interface Envelope<Type extends MessageType = MessageType> {
  readonly id: string
  readonly type: Type
  /** When it happened, RFC 3339. */
  readonly time: string
  /** The operation's id, if it is about one. */
  readonly subject?: string | undefined
  /** W3C Trace Context. */
  readonly traceparent?: string | undefined
  /** The id of the redrive's event, if a redrive caused the message. */
  readonly redrive?: string | undefined
  readonly data: MessageData<Type>
}

/** An envelope of any type. `switch (envelope.type)` narrows it. */
export type AnyEnvelope = { [Type in MessageType]: Envelope<Type> }[MessageType]

const utf8 = new TextDecoder('utf-8', { fatal: true })

/**
 * The Kafka message of an event, by the Kafka protocol binding of CloudEvents 1.0, section 3.2 (binary mode). Its key is the
 * user's id, so that one user's messages keep their order, or the event's id if there is no user.
 * @throws Problem `payload-too-large` above `MAX_MESSAGE_BYTES`
 * @example
 * const message = encode({ id, type: 'posta.user.registered', time: '2026-11-23T12:00:00Z', data: { user } })
 * await broker.publish([message])
 */
export function encode<Type extends MessageType>(envelope: Envelope<Type>): Outgoing {
  const { topic } = messages[envelope.type]
  const headers: Header[] = []
  const add = (name: string, text: string | undefined) => {
    if (text !== undefined) headers.push([name, Buffer.from(text)])
  }
  add('ce_specversion', '1.0')
  add('ce_id', envelope.id)
  add('ce_source', sourceOf(envelope.type))
  add('ce_type', envelope.type)
  add('ce_time', envelope.time)
  add('ce_dataschema', dataschema(envelope.type))
  add('ce_subject', envelope.subject)
  add('ce_redrive', envelope.redrive)
  add('content-type', 'application/json')
  add('traceparent', envelope.traceparent)
  const user = 'user' in envelope.data ? envelope.data.user : undefined
  const message = { topic, key: user ?? envelope.id, value: Buffer.from(JSON.stringify(envelope.data)), headers }
  const bytes = sizeBytes(message)
  if (bytes > MAX_MESSAGE_BYTES)
    throw new Problem('payload-too-large', `The message would have ${bytes} bytes; at most ${MAX_MESSAGE_BYTES} fit.`)
  return message
}

const Attributes = v.object({
  ce_specversion: v.literal('1.0'),
  ce_id: v.pipe(v.string(), v.minLength(1), v.maxLength(256)),
  ce_time: v.pipe(v.string(), v.maxLength(64), v.isoTimestamp()),
  ce_type: v.pipe(v.string(), v.maxLength(128)),
  ce_subject: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(256))),
  ce_redrive: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(256))),
  // It is copied to the messages that this one causes. A long one, which no tracer makes, could make those too large.
  traceparent: v.fallback(v.optional(v.pipe(v.string(), v.maxLength(256))), undefined),
})

export type Decoded = { readonly envelope: AnyEnvelope } | { readonly unreadable: string }

/**
 * Reads a message. Never throws. `unreadable` is a sentence that says why it cannot be read, and quotes no content.
 * @example
 * const decoded = decode(message)
 * if ('envelope' in decoded && decoded.envelope.type === 'posta.user.registered') welcome(decoded.envelope.data.user)
 */
export function decode(message: Delivered): Decoded {
  if (message.unreadable !== undefined) return { unreadable: message.unreadable }
  const attributes = v.safeParse(
    Attributes,
    Object.fromEntries(Object.keys(Attributes.entries).map((name) => [name, headerText(message, name)])),
  )
  if (!attributes.success)
    return { unreadable: `The header ${String(attributes.issues[0].path?.[0]?.key)} is missing or invalid.` }
  const { ce_type: type } = attributes.output
  if (!isMessageType(type) || messages[type].topic !== message.topic)
    return { unreadable: `Its ce_type does not belong on ${message.topic}.` }
  const json = parseJson(message.value)
  if (!json) return { unreadable: 'The value is not JSON in UTF-8.' }
  const data = v.safeParse(messages[type].data, json.value)
  if (!data.success) {
    const path = data.issues[0].path?.map((item) => String(item.key)).join('.') ?? ''
    return { unreadable: `The value does not fit the schema of ${type}${path && ` at ${path.slice(0, 100)}`}.` }
  }
  const { ce_id: id, ce_time: time, ce_subject: subject, ce_redrive: redrive, traceparent } = attributes.output
  // The schema of `type` accepted the data. The compiler cannot see that through the look-up.
  return { envelope: { id, type, time, subject, redrive, traceparent, data: data.output } as AnyEnvelope }
}

function isMessageType(type: string): type is MessageType {
  return Object.hasOwn(messages, type)
}

function parseJson(value: Uint8Array | null): { value: unknown } | undefined {
  if (!value) return undefined
  try {
    return { value: JSON.parse(utf8.decode(value)) }
  } catch {
    return undefined
  }
}

/** The types of the events on a topic. */
export function typesOn(topic: Topic): MessageType[] {
  return Object.keys(messages)
    .filter(isMessageType)
    .filter((type) => messages[type].topic === topic)
}
