import { expect, test } from 'bun:test'
import { deadLetterMessages } from '@posta/common/messages/dead-letter.ts'
import { decode } from '@posta/common/messages/envelope.ts'
import { groups } from '@posta/common/messages/topics.ts'
import { deliver, loggedIn, NOON_MS, requested, succeeded } from '../testing/messages.ts'
import { fieldsOfText, toEvent } from './record.ts'

test('every field of an event follows from its text', () => {
  for (const message of [requested('op-1'), succeeded('op-1'), loggedIn('e-1')]) {
    const { text, ...fields } = toEvent(deliver(message, 7, 3), NOON_MS)
    expect(fieldsOfText(text)).toEqual(fields)
  }
})

test('an event has the id, type, time, user, operation and chain of its message', () => {
  expect(toEvent(deliver(requested('op-1', 'ana', 1500), 7, 3), NOON_MS)).toMatchObject({
    id: 'op-1.requested',
    type: 'posta.operation.requested',
    user: 'ana',
    operation: 'op-1',
    timeMs: NOON_MS + 1500,
    minute: NOON_MS / 60_000,
    chain: 'posta.requests/3',
    durationMs: undefined,
  })
})

test('the event of a dead letter is of the operation that the message was about', () => {
  const [, event] = deadLetterMessages(deliver(requested('op-1')), groups.processor, 'It fails.', NOON_MS)
  if (!event) throw new Error('Nothing tells of it.')
  expect(toEvent(deliver(event), NOON_MS)).toMatchObject({ type: 'posta.message.dead-lettered', operation: 'op-1' })
})

test('the event of a result has the duration of its operation, which is never negative', () => {
  expect(toEvent(deliver(succeeded('op-1', 'ana', 40)), NOON_MS).durationMs).toBe(40)
  expect(toEvent(deliver(succeeded('op-1', 'ana', -40)), NOON_MS).durationMs).toBe(0)
})

test('the text holds key, headers and value exactly as received, whatever bytes they are', () => {
  const message = loggedIn('e-1')
  const bytes = new Uint8Array([0, 159, 146, 150, 255])
  const headers = [
    ...message.headers,
    ['foreign', bytes],
    ['foreign', Buffer.from('"quoted" \u2028 \u{1f4ee}')],
  ] as const
  const text = JSON.parse(toEvent({ ...deliver(message), key: bytes, headers }, NOON_MS).text)
  expect(Buffer.from(text.key.base64, 'base64')).toEqual(Buffer.from(bytes))
  expect(text.headers.at(-2)).toEqual(['foreign', { base64: Buffer.from(bytes).toString('base64') }])
  expect(text.headers.at(-1)).toEqual(['foreign', '"quoted" \u2028 \u{1f4ee}'])
  expect(text.value).toBe(Buffer.from(message.value).toString())
})

test('every message that can be decoded becomes an event: with a byte order mark, a day that does not exist, an unknown member', () => {
  const message = loggedIn('e-1')
  const value = Buffer.from(`\uFEFF{"user":"ana","session":"s","more":[1]}`)
  const headers = message.headers.map(([name, bytes]) =>
    name === 'ce_time' ? ([name, Buffer.from('2026-02-31T00:00:00Z')] as const) : ([name, bytes] as const),
  )
  const delivered = { ...deliver(message), value, headers }
  expect(decode(delivered)).toHaveProperty('envelope')
  const { text, ...fields } = toEvent(delivered, NOON_MS)
  expect(fields.user).toBe('ana')
  expect(Number.isSafeInteger(fields.timeMs)).toBe(true)
  expect(fieldsOfText(text)).toEqual(fields)
})
