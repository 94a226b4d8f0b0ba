import { expect, test } from 'bun:test'
import type { Delivered } from '@posta/common/messages/message.ts'
import { link, START } from '../audit/chain.ts'
import { at, deliver, NOON_MS, requested, succeeded } from '../testing/messages.ts'
import { toEvent } from './record.ts'
import { show } from './show.ts'

const shown = (delivered: Delivered) => link(START, [toEvent(delivered, NOON_MS + 5)]).map(show)[0]

test('an event is shown with its data as received, where the broker holds the message, and its place in the chain', () => {
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
  expect(shown(deliver(succeeded('op-1', 'ana', 40, 'redrive-1')))?.redrive).toBe('redrive-1')
})

test('an event whose text cannot be read is shown as altered, with what its fields still say', () => {
  const [event] = link(START, [toEvent(deliver(requested('op-1'), 7, 3), NOON_MS + 5)])
  if (!event) throw new Error('there is one')
  expect(show({ ...event, text: 'x' })).toEqual({
    id: 'op-1.requested',
    type: 'posta.operation.requested',
    time: at(0),
    user: 'ana',
    operation: 'op-1',
    topic: 'posta.requests',
    partition: 3,
    offset: -1,
    receivedAt: at(0),
    data: null,
    chain: { name: 'posta.requests/3', seq: 1, hash: event.hash },
    altered: true,
  })
  const { user: _user, operation: _operation, ...rest } = event
  const unowned = show({ ...rest, user: undefined, operation: undefined, text: 'x' })
  expect(unowned).not.toHaveProperty('user')
  expect(unowned).not.toHaveProperty('operation')
})
