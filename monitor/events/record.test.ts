import { expect, test } from 'bun:test'
import { decode } from '@posta/common/messages/envelope.ts'
import { link, START } from '../audit/chain.ts'
import { at, deliver, loggedIn, NOON_MS, requested, succeeded } from '../testing/messages.ts'
import { fieldsOfText, toEvent } from './record.ts'
import { show } from './show.ts'

const shown = (delivered: Parameters<typeof toEvent>[0]) => {
  const [event] = link(START, [toEvent(delivered, NOON_MS + 5)])
  if (!event) throw new Error('there is an event')
  return show(event)
}

test('every field of an event follows from its text', () => {
  for (const message of [requested('op-1'), succeeded('op-1'), loggedIn('e-1')]) {
    const { text, ...fields } = toEvent(deliver(message, 7, 3), NOON_MS)
    expect(fieldsOfText(text)).toEqual(fields)
  }
})

test('a request is found by its user, its operation, its type and its time', () => {
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

test('a result says how long its operation took, and never less than nothing', () => {
  expect(toEvent(deliver(succeeded('op-1', 'ana', 40)), NOON_MS).durationMs).toBe(40)
  expect(toEvent(deliver(succeeded('op-1', 'ana', -40)), NOON_MS).durationMs).toBe(0)
})

test('the text holds headers and value exactly as received, of whatever bytes', () => {
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

test('whatever the decoder reads becomes an event: a byte order mark, a day that does not exist, a member too many', () => {
  const message = loggedIn('e-1')
  const value = Buffer.from(`\uFEFF{"user":"ana","session":"s","more":[1]}`)
  const headers = message.headers.map(([name, bytes]) =>
    name === 'ce_time' ? ([name, Buffer.from('2026-02-31T00:00:00Z')] as const) : ([name, bytes] as const),
  )
  const delivered = { ...deliver(message), value, headers }
  expect(decode(delivered)).toHaveProperty('envelope')
  const event = toEvent(delivered, NOON_MS)
  expect(event.user).toBe('ana')
  expect(Number.isSafeInteger(event.timeMs)).toBe(true)
  expect(fieldsOfText(event.text)).toEqual({ ...event, text: undefined } as never)
})

test('an event is shown with its place, its data as received and its link', () => {
  expect(shown(deliver(requested('op-1'), 7, 3))).toEqual({
    id: 'op-1.requested',
    type: 'posta.operation.requested',
    time: at(0),
    user: 'ana',
    operation: 'op-1',
    topic: 'posta.requests',
    partition: 3,
    offset: 7,
    receivedAt: at(5),
    data: JSON.parse(Buffer.from(requested('op-1').value).toString()),
    traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    chain: { name: 'posta.requests/3', seq: 1, hash: expect.stringMatching(/^[\da-f]{64}$/) },
  })
  expect(shown(deliver(succeeded('op-1', 'ana', 40, 'redrive-1'))).redrive).toBe('redrive-1')
})
