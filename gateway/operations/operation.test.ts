import { expect, test } from 'bun:test'
import { decode } from '@posta/common/messages/envelope.ts'
import { sample } from '@posta/common/testing/sample.ts'
import type { ProgressEntry } from '../database/schema.ts'
import { isTerminal, type OperationRow, toOperation, toRequest } from './operation.ts'

const CREATED_MS = Date.UTC(2026, 10, 23, 12)
const input = sample.input()
const facts = { learned: 'something' }

function row(given: Partial<OperationRow> = {}): OperationRow {
  return {
    id: 'op-1',
    userId: 'ana',
    type: sample.type,
    status: 'pending',
    input,
    facts: null,
    output: null,
    errorCode: null,
    errorMessage: null,
    traceparent: null,
    idempotencyKey: 'secret',
    createdAt: CREATED_MS,
    completedAt: null,
    progress: null,
    waiting: false,
    inputs: null,
    resendAt: CREATED_MS,
    resends: 0,
    ...given,
  }
}
const entry = (step: string): ProgressEntry => ({ step, status: 'done', at: '2026-11-23T12:00:01.000Z' })
const pending = {
  id: 'op-1',
  type: sample.type,
  status: 'pending',
  input,
  createdAt: '2026-11-23T12:00:00.000Z',
} as const

test('a user sees of an operation what it has, and no member that it lacks', () => {
  expect(toOperation(row())).toStrictEqual(pending)
  const completedAt = '2026-11-23T12:00:02.000Z'
  const ended = { completedAt: CREATED_MS + 2000 }
  expect(toOperation(row({ ...ended, status: 'succeeded', output: { amount: '1' } }))).toStrictEqual({
    ...pending,
    status: 'succeeded',
    output: { amount: '1' },
    completedAt,
  })
  for (const errorMessage of ['It is over the limit.', null])
    expect(toOperation(row({ ...ended, status: 'failed', errorCode: 'limit-exceeded', errorMessage }))).toStrictEqual({
      ...pending,
      status: 'failed',
      error: { code: 'limit-exceeded', message: errorMessage ?? '' },
      completedAt,
    })
})

test('progress is shown in the order of its numbers, without what is for gateway alone', () => {
  const progress = { 10: entry('ten'), 9: entry('nine'), 2: { ...entry('two'), forSignal: true } }
  expect(toOperation(row({ progress })).progress).toStrictEqual([entry('two'), entry('nine'), entry('ten')])
})

test('an operation is terminal once it is no longer pending', () => {
  expect((['pending', 'succeeded', 'failed'] as const).map((status) => isTerminal({ status }))).toEqual([
    false,
    true,
    true,
  ])
})

test('the request of an operation has all that processor needs, and is the same each time', () => {
  const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
  const asked = row({ facts, traceparent })
  const message = toRequest(asked)
  expect(toRequest(asked)).toEqual(message)
  expect(message.key).toBe('ana')
  const at = { partition: 0, offset: 0, timestampMs: 0 }
  const createdAt = '2026-11-23T12:00:00.000Z'
  expect(decode({ ...message, key: Buffer.from(message.key), ...at })).toEqual({
    envelope: {
      id: 'op-1',
      type: 'posta.operation.requested',
      time: createdAt,
      subject: 'op-1',
      traceparent,
      data: { user: 'ana', operation: 'op-1', operationType: sample.type, input, facts, createdAt },
    },
  })
  const without = toRequest(row())
  expect(without.headers.map(([name]) => name)).not.toContain('traceparent')
  expect(JSON.parse(Buffer.from(without.value).toString())).not.toHaveProperty('facts')
})
