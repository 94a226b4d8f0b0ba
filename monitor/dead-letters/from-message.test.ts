import { describe, expect, test } from 'bun:test'
import { encodeDeadLetter } from '@posta/common/messages/dead-letter.ts'
import type { Delivered } from '@posta/common/messages/message.ts'
import { deliver, loggedIn, NOON_MS, requested } from '../testing/messages.ts'
import { toDeadLetter } from './from-message.ts'

const setAside = (original: Delivered, reason = 'It failed.') =>
  toDeadLetter(deliver(encodeDeadLetter(original, 'posta.processor', reason)), NOON_MS)

describe('a dead letter', () => {
  test('holds what is known of the message and its bytes', () => {
    const original = deliver(requested('op-1'), 7, 3)
    const deadLetter = setAside(original)
    expect(deadLetter.decision).toBeUndefined()
    expect(deadLetter).toMatchObject({
      id: `posta.requests.3.7.${NOON_MS}`,
      status: 'open',
      receivedAtMs: NOON_MS,
      reason: 'It failed.',
      group: 'posta.processor',
      topic: 'posta.requests',
      partition: 3,
      offset: 7,
      redrivable: true,
      type: 'posta.operation.requested',
      user: 'ana',
      operation: 'op-1',
    })
  })

  test('takes the user of an unreadable request from its key, and of no other message', () => {
    const garbled = { value: Buffer.from('{'), headers: [] }
    expect(setAside({ ...deliver(requested('op-1')), ...garbled })).toMatchObject({ user: 'ana', preview: '{' })
    expect(setAside({ ...deliver(loggedIn('e-1')), ...garbled }).user).toBeUndefined()
  })

  test('from the dead-letter topic itself cannot be redriven', () => {
    const original = { ...deliver(loggedIn('e-1')), topic: 'posta.dead-letters' as const }
    expect(setAside(original).redrivable).toBe(false)
  })

  test('of what the broker could not read cannot be redriven, and says why', () => {
    const unreadable = 'It is a batch packed with zstd.'
    const raw = { ...deliver(requested('op-1'), 7, 3), key: null, headers: [], unreadable }
    const expected = { redrivable: false, reason: unreadable, partition: 3, offset: 7 }
    expect(setAside(raw, unreadable)).toMatchObject({ ...expected, topic: 'posta.requests', group: 'posta.processor' })
    const onItsOwnTopic = { ...raw, topic: 'posta.dead-letters' as const }
    expect(toDeadLetter(onItsOwnTopic, NOON_MS)).toMatchObject({ ...expected, topic: 'posta.dead-letters' })
  })

  test('that cannot be read keeps 64 KiB at most', () => {
    const bytes = new Uint8Array(1024 * 1024)
    const headers = Array.from({ length: 1000 }, () => ['h'.repeat(1000), bytes] as const)
    const message = { ...deliver(loggedIn('e-1')), topic: 'posta.dead-letters' as const, value: bytes, headers }
    expect(JSON.stringify(toDeadLetter(message, NOON_MS)).length).toBeLessThan(64 * 1024 * 1.5 + 40_000)
  })
})
