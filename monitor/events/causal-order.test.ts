import { expect, test } from 'bun:test'
import { at } from '../testing/messages.ts'
import { inCausalOrder } from './causal-order.ts'
import type { ShownEvent } from './show.ts'
import { itemsOf } from './timeline.ts'

const event = (id: string, type: string, ms: number, data: object = {}): ShownEvent => ({
  ...{ id, type, time: at(ms), receivedAt: at(ms), topic: 'any', partition: 0, offset: 0, data },
  chain: { name: 'any/0', seq: 1, hash: '' },
})
const request = event('op', 'posta.operation.requested', 0)
const progress = (n: number, ms: number) => event(`op.progress.${n}`, 'posta.operation.progressed', ms, { n })
const idsOf = (events: readonly ShownEvent[]) => inCausalOrder(events).map(({ id }) => id)

test('an operation takes from its first event to its last', () => {
  const events = [request, progress(0, 10), event('op.result', 'posta.operation.succeeded', 40)]
  expect(itemsOf(events).totalMs).toBe(40)
})

test("the dead letter of a run's record stands at the number of that record, whatever the clocks say", () => {
  const deadLetter = { deadLetter: 'posta.requests.0.7.1000.12' }
  const letter = event('d', 'posta.message.dead-lettered', 30, deadLetter)
  const events = [request, progress(11, 20), letter, progress(13, 22)].map(({ id }) => id)
  expect(idsOf([letter, progress(13, 22), request, progress(11, 20)])).toEqual(events)
})

test('events of one time stand in the order of their ids, however they come', () => {
  const cancels = ['a', 'b', 'c'].map((id) => event(id, 'posta.operation.cancel-requested', 5))
  for (const given of [cancels, cancels.toReversed()]) expect(idsOf([...given, request])).toEqual(['op', 'a', 'b', 'c'])
})
