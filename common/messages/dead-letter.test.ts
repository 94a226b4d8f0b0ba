import { expect, test } from 'bun:test'
import { deadLetterId, decodeDeadLetter, encodeDeadLetter, occurrenceOf } from './dead-letter.ts'
import { decode, encode } from './envelope.ts'
import { type Delivered, type Header, sizeBytes } from './message.ts'
import { groups, topicSettings, topics } from './topics.ts'

const place = { topic: topics.requests, partition: 3, offset: 17, timestampMs: 1_795_521_600_000 }
const deliver = (original: Delivered) => {
  const letter = encodeDeadLetter(original, groups.processor, original.unreadable ?? 'It failed.')
  return decodeDeadLetter({ ...letter, partition: 0, offset: 0, timestampMs: 0, key: Buffer.from(letter.key) })
}

test('the id of a dead letter tells its occurrence, where it has one', () => {
  for (const topic of Object.values(topics)) {
    const original = { topic, partition: 3, offset: 17, timestampMs: 1_795_521_600_000 }
    expect(occurrenceOf(deadLetterId(original))).toBeUndefined()
    for (const occurrence of [0, 42]) expect(occurrenceOf(deadLetterId(original, occurrence))).toBe(occurrence)
  }
  expect(occurrenceOf('what another program wrote')).toBeUndefined()
})

test('whatever a group can read, its dead letter fits on its topic', () => {
  const { maxMessageBytes, maxHeaders } = topicSettings[topics.requests]
  const bytes = Buffer.alloc(maxMessageBytes + 16 * 1024)
  const empty = Buffer.alloc(0)
  const header: Header = [bytes.toString('latin1'), empty]
  const reason = '\u{1f4a5}'.repeat(5000)
  for (const largest of [
    { key: bytes, value: empty, headers: [] },
    { key: empty, value: bytes, headers: [] },
    { key: null, value: null, headers: [header] },
    { key: null, value: null, headers: Array.from({ length: maxHeaders }, (): Header => ['h', empty]) },
  ]) {
    const letter = encodeDeadLetter({ ...place, ...largest }, groups.processor, reason, 999)
    expect(sizeBytes(letter)).toBeLessThanOrEqual(topicSettings[topics.deadLetters].maxMessageBytes)
    expect(letter.headers.length).toBeLessThanOrEqual(topicSettings[topics.deadLetters].maxHeaders)
  }
})

test('a dead letter says whether the broker could not read the message', () => {
  const readable = { ...place, key: null, value: Buffer.from('bytes'), headers: [] }
  expect(deliver(readable)?.original).toEqual(readable)
  const unreadable = { ...readable, unreadable: 'It is a batch packed with zstd.' }
  expect(deliver(unreadable)).toMatchObject({ reason: unreadable.unreadable, original: unreadable })
})

test('what the broker could not read is unreadable, whatever else is known of it', () => {
  const event = encode({ id: 'e-1', type: 'posta.key.rotated', time: '2026-11-23T12:00:00Z', data: { kid: 'k-1' } })
  const readable = { ...event, partition: 0, offset: 0, timestampMs: 0, key: Buffer.from(event.key) }
  expect(decode(readable)).toHaveProperty('envelope')
  expect(decode({ ...readable, unreadable: 'It is packed.' })).toEqual({ unreadable: 'It is packed.' })
})
