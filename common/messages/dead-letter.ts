import { type Delivered, type Header, headerText, type Outgoing } from './message.ts'
import { type Group, type Topic, topics } from './topics.ts'

/** A message that a group could not handle, as it came, and where and why. */
export interface DeadLetter {
  /** From the place and time of the original, so that whoever sets it aside, and however often, it is one dead letter. */
  readonly id: string
  readonly group: string
  readonly reason: string
  readonly original: Delivered
}

const PREFIX = 'posta-'

export function deadLetterId({ topic, partition, offset, timestampMs }: Delivered): string {
  return `${topic}.${partition}.${offset}.${timestampMs}`
}

/** The message on the topic of dead letters: the original's bytes and headers, and the facts in `posta-*` headers. */
export function encodeDeadLetter(original: Delivered, group: Group, reason: string): Outgoing {
  const facts: Header[] = []
  const add = (name: string, value: string | number) => facts.push([PREFIX + name, Buffer.from(String(value))])
  const id = deadLetterId(original)
  add('id', id)
  add('group', group)
  add('reason', reason.slice(0, 2000))
  add('topic', original.topic)
  add('partition', original.partition)
  add('offset', original.offset)
  add('timestamp', original.timestampMs)
  if (original.key) facts.push([`${PREFIX}key`, original.key])
  if (!original.value) add('value', 'null')
  return {
    topic: topics.deadLetters,
    key: id,
    value: original.value ?? new Uint8Array(),
    headers: [...original.headers, ...facts],
  }
}

/** The dead letter that a message holds; undefined where the facts are missing (someone else wrote it). */
export function decodeDeadLetter(message: Delivered): DeadLetter | undefined {
  const text = (name: string) => headerText(message, PREFIX + name)
  const [id, group, reason, topic] = [text('id'), text('group'), text('reason'), text('topic')]
  const [partition, offset, timestampMs] = [
    Number(text('partition')),
    Number(text('offset')),
    Number(text('timestamp')),
  ]
  if (!id || !group || reason === undefined || !isTopic(topic)) return undefined
  if (![partition, offset, timestampMs].every(Number.isSafeInteger)) return undefined
  const original: Delivered = {
    topic,
    partition,
    offset,
    timestampMs,
    key: message.headers.findLast(([name]) => name === `${PREFIX}key`)?.[1] ?? null,
    value: text('value') === 'null' ? null : message.value,
    headers: message.headers.filter(([name]) => !name.startsWith(PREFIX)),
  }
  // Whatever the header says, the id follows from the place: no foreign message can stand in for another dead letter.
  return id === deadLetterId(original) ? { id, group, reason, original } : undefined
}

function isTopic(text: string | undefined): text is Topic {
  return Object.values<string | undefined>(topics).includes(text)
}
