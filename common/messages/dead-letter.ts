import * as v from 'valibot'
import { NAME } from '../name.ts'
import { encode } from './envelope.ts'
import { type Delivered, type Header, headerText, type Outgoing } from './message.ts'
import { type Group, type Topic, topics } from './topics.ts'

/** A message that a group could not handle, as it came, and where and why. */
export interface DeadLetter {
  /** Follows from the original's position and time: whoever sets it aside, and however often, it is one dead letter. */
  readonly id: string
  readonly group: string
  readonly reason: string
  readonly original: Delivered
}

/** Of the headers that hold a dead letter's facts. */
export const DEAD_LETTER_PREFIX = `${NAME}-`

type Positioned = Pick<Delivered, 'topic' | 'partition' | 'offset' | 'timestampMs'>

/** @param occurrence tells several dead letters of one message apart: its run can be stuck more than once */
export function deadLetterId({ topic, partition, offset, timestampMs }: Positioned, occurrence?: number): string {
  const position = `${topic}.${partition}.${offset}.${timestampMs}`
  return occurrence === undefined ? position : `${position}.${occurrence}`
}

/** The occurrence in the id of a dead letter; undefined where it has none. The id may come from anywhere. */
export function occurrenceOf(deadLetter: string): number | undefined {
  const [, occurrence] = /(?:\.\d+){3}\.(\d+)$/.exec(deadLetter) ?? []
  return occurrence === undefined ? undefined : Number(occurrence)
}

/** The id of the event of a redrive, which the redriven message carries as `ce_redrive`. */
export const redriveId = (deadLetter: string) => `${deadLetter}.redriven`

/** The message on the dead-letter topic: the original's bytes and headers, and the facts in headers with the prefix. */
export function encodeDeadLetter(original: Delivered, group: Group, reason: string, occurrence?: number): Outgoing {
  const facts: Header[] = []
  const add = (name: string, value: string | number) =>
    facts.push([DEAD_LETTER_PREFIX + name, Buffer.from(String(value))])
  const id = deadLetterId(original, occurrence)
  add('id', id)
  if (occurrence !== undefined) add('occurrence', occurrence)
  add('group', group)
  add('reason', reason.slice(0, 2000))
  add('topic', original.topic)
  add('partition', original.partition)
  add('offset', original.offset)
  add('timestamp', original.timestampMs)
  if (original.key) facts.push([`${DEAD_LETTER_PREFIX}key`, original.key])
  if (!original.value) add('value', 'null')
  if (original.unreadable !== undefined) add('unreadable', 'true')
  return {
    topic: topics.deadLetters,
    key: id,
    value: original.value ?? new Uint8Array(),
    headers: [...original.headers, ...facts],
  }
}

/** What setting a message aside publishes: the dead letter, and the event that tells of it. Both have ids that follow from its position. */
export function deadLetterMessages(
  original: Delivered,
  group: Group,
  reason: string,
  nowMs: number,
  occurrence?: number,
): Outgoing[] {
  const deadLetter = deadLetterId(original, occurrence)
  const { topic, partition, offset } = original
  const event = encode({
    id: `${deadLetter}.dead-lettered`,
    type: 'posta.message.dead-lettered',
    time: new Date(nowMs).toISOString(),
    subject: idText(headerText(original, 'ce_subject')),
    data: { user: userByKey(original), deadLetter, group, topic, partition, offset, reason: reason.slice(0, 2000) },
  })
  return [encodeDeadLetter(original, group, reason, occurrence), event]
}

const Text = v.pipe(v.string(), v.minLength(1))
const Count = v.pipe(v.string(), v.transform(Number), v.safeInteger())
const Facts = v.object({
  id: Text,
  group: Text,
  reason: v.string(),
  topic: v.picklist(Object.values<Topic>(topics)),
  partition: Count,
  offset: Count,
  timestamp: Count,
  occurrence: v.optional(Count),
})

/** The dead letter in a message; undefined where a fact is missing or wrong (another program wrote it). Never throws. */
export function decodeDeadLetter(message: Delivered): DeadLetter | undefined {
  const fact = (name: string) => headerText(message, DEAD_LETTER_PREFIX + name)
  const facts = v.safeParse(Facts, Object.fromEntries(Object.keys(Facts.entries).map((name) => [name, fact(name)])))
  if (!facts.success) return undefined
  const { id, group, reason, timestamp: timestampMs, occurrence, ...position } = facts.output
  const original: Delivered = {
    ...position,
    timestampMs,
    key: message.headers.findLast(([name]) => name === `${DEAD_LETTER_PREFIX}key`)?.[1] ?? null,
    value: fact('value') === 'null' ? null : message.value,
    headers: message.headers.filter(([name]) => !name.startsWith(DEAD_LETTER_PREFIX)),
    ...(fact('unreadable') !== undefined && { unreadable: reason }),
  }
  // Whatever the header says, the id must follow from the position: no message can pass for another dead letter.
  return id === deadLetterId(original, occurrence) ? { id, group, reason, original } : undefined
}

/** The user whose message it is: the key of a request or a result is the user's id. On other topics it may be anything. */
export function userByKey({ topic, key }: Pick<Delivered, 'topic' | 'key'>): string | undefined {
  return topic === topics.requests || topic === topics.results
    ? idText(key && Buffer.from(key).toString('utf8'))
    : undefined
}

/** The value, if it is a text as long as an id may be. */
export function idText(value: unknown): string | undefined {
  return typeof value === 'string' && value.length > 0 && value.length <= 256 ? value : undefined
}
