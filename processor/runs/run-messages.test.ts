import { expect, test } from 'bun:test'
import { decodeDeadLetter } from '@posta/common/messages/dead-letter.ts'
import { decode } from '@posta/common/messages/envelope.ts'
import type { Delivered, Outgoing } from '@posta/common/messages/message.ts'
import { topics } from '@posta/common/messages/topics.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { NOON, NOON_MS } from '../testing/requests.ts'
import { newRun } from '../testing/run-to-end.ts'
import { deadLetterOf, messagesOf } from './run-messages.ts'
import type { RunRecord } from './runs.ts'

const at = { n: 3, atMs: NOON_MS }
const arrived = (outgoing: Outgoing): Delivered => ({
  ...outgoing,
  key: Buffer.from(outgoing.key),
  partition: 0,
  offset: 0,
  timestampMs: NOON_MS,
})

test.each<[RunRecord, Readonly<Record<string, unknown>>]>([
  [
    { ...at, kind: 'done', step: 'pay' },
    { step: 'pay', status: 'done' },
  ],
  [
    { ...at, kind: 'undone', step: 'reserve' },
    { step: 'reserve', status: 'undone' },
  ],
  [
    { ...at, kind: 'waiting', step: 'approve', untilMs: NOON_MS + 1000, forSignal: true },
    { step: 'approve', status: 'waiting', until: new Date(NOON_MS + 1000).toISOString(), forSignal: true },
  ],
])('a record of what a step came to is told as progress: %j', (record, told) => {
  const [message, ...more] = messagesOf(newRun(), record)
  if (!message) throw new Error('Nothing is told.')
  expect(more).toEqual([])
  const decoded = decode(arrived(message))
  expect(decoded).toMatchObject({
    envelope: { id: 'op.progress.3', type: 'posta.operation.progressed', subject: 'op' },
  })
  // Only a wait says how long, and for what.
  const data = { user: 'ana', operation: 'op', operationType: sample.type, n: 3, at: NOON, ...told }
  expect('envelope' in decoded && decoded.envelope.data).toEqual(data)
})

test.each<RunRecord>([
  { ...at, kind: 'started', step: 'pay', final: true },
  { ...at, kind: 'failing', failure: { code: 'cancelled', message: 'No.' } },
  { ...at, kind: 'resumed' },
  { ...at, kind: 'ended', outcome: { output: {} } },
])('of the other records nothing is told: %j', (record) => {
  expect(messagesOf(newRun(), record)).toEqual([])
})

test('a run that is stuck is told as a dead letter, which holds the request as it came', () => {
  const run = newRun({ traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', redrive: 'again' })
  const record: RunRecord = { ...at, kind: 'stuck', reason: 'The other side is away.' }
  const [letter, event, ...more] = messagesOf(run, record)
  if (!letter || !event) throw new Error('Nothing is told.')
  expect(more).toEqual([])
  const read = decodeDeadLetter(arrived(letter))
  expect(read).toMatchObject({ id: deadLetterOf(run, record), reason: 'The other side is away.' })
  if (!read) throw new Error('It is no dead letter.')
  const { traceparent, redrive, input, facts } = run
  expect(read.original).toMatchObject({ topic: topics.requests, key: Buffer.from('ana'), ...run.position })
  expect(decode(read.original)).toEqual({
    envelope: {
      ...{ id: 'op', type: 'posta.operation.requested', time: NOON, subject: 'op', redrive, traceparent },
      data: { user: 'ana', operation: 'op', operationType: sample.type, input, facts, createdAt: NOON },
    },
  })
  expect(decode(arrived(event))).toMatchObject({ envelope: { type: 'posta.message.dead-lettered', subject: 'op' } })
})
