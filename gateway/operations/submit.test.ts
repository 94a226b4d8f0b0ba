import { afterEach, expect, test } from 'bun:test'
import type { OperationType } from '@posta/common/operations/catalog.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { continueTrace, traceparent, withTrace } from '@posta/common/service/trace.ts'
import { and, asc, eq } from 'drizzle-orm'
import { operations, outbox } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { everyType, fixedSources } from '../testing/operations.ts'
import { createSubmit, MAX_PENDING_PER_USER } from './submit.ts'

const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const table = {
  base: 'USD',
  date: '2026-11-23',
  source: 'live' as const,
  rates: [
    { code: 'ARS', rate: '1472.5' },
    { code: 'EUR', rate: '0.8' },
  ],
}
const conversion = (amount = '1') => ({ type: 'convert', input: { from: 'USD', to: 'ARS', amount } })
const payout = { type: 'payout', input: { from: 'USD', to: 'ARS', amount: '1', payee: 'AR-1' } }

async function open() {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  let fetches = 0
  const rates = {
    table: async () => {
      fetches += 1
      return table
    },
  }
  const parts = {
    ...opened,
    sources: { ...fixedSources, rates },
    offered: everyType,
    onAccepted: () => {},
    deps: systemDeps,
  }
  const submit = createSubmit(parts)
  return {
    ...opened,
    parts,
    fetches: () => fetches,
    /** The operation's id, or the code of the problem. */
    submit: (submission: unknown, user = 'ana', idempotencyKey?: string) =>
      submit({ user, submission, idempotencyKey }).then(
        ({ id }) => id,
        (error: unknown) => {
          if (error instanceof Problem) return error.code
          throw error
        },
      ),
  }
}

test('a user has at most 100 operations pending, however many they submit at once, and other users are not affected', async () => {
  const { submit } = await open()
  const many = await Promise.all(Array.from({ length: 3 * MAX_PENDING_PER_USER }, () => submit(conversion())))
  expect(many.filter((answer) => answer === 'too-many-pending')).toHaveLength(2 * MAX_PENDING_PER_USER)
  expect(await submit(conversion(), 'bob')).not.toBe('too-many-pending')
})

test('operations that wait for an answer count apart: 100 others may be pending beside them', async () => {
  const { submit, database, writer } = await open()
  const many = (count: number) => Promise.all(Array.from({ length: count }, () => submit(conversion())))
  const refused = (answers: string[]) => answers.filter((answer) => answer === 'too-many-pending').length
  await many(MAX_PENDING_PER_USER)
  await writer.write([database.update(operations).set({ waiting: true })])
  expect(refused(await many(2 * MAX_PENDING_PER_USER))).toBe(MAX_PENDING_PER_USER)
  // Those that have ended count nowhere, whatever their last progress was.
  await writer.write([database.update(operations).set({ status: 'failed', waiting: true })])
  expect(refused(await many(MAX_PENDING_PER_USER + 1))).toBe(1)
})

test('at most 1,000 operations of a user come to wait for an answer; those that never wait are still accepted', async () => {
  const { submit, database, writer } = await open()
  const many = (count: number) => Promise.all(Array.from({ length: count }, () => submit(payout)))
  const accepted = (answers: string[]) => answers.filter((answer) => answer !== 'too-many-pending').length
  const waits = () => writer.write([database.update(operations).set({ waiting: true })])
  for (let round = 0; round < 9; round++) {
    expect(accepted(await many(100))).toBe(100)
    await waits()
  }
  expect(accepted(await many(99))).toBe(99)
  await waits()
  // There is room for one more, however many ask at once.
  expect(accepted(await many(5))).toBe(1)
  await waits()
  expect(await submit(payout)).toBe('too-many-pending')
  expect(await submit(conversion())).not.toBe('too-many-pending')
  expect(await submit(payout, 'bob')).not.toBe('too-many-pending')
  expect(await database.$count(operations, and(eq(operations.userId, 'ana'), eq(operations.waiting, true)))).toBe(1000)
})

test('a type that is not offered is refused before anything is fetched; a key of an earlier one is still answered', async () => {
  const { submit, parts, fetches, database } = await open()
  const first = await submit(payout, 'ana', 'k')
  const closed = createSubmit({ ...parts, offered: new Set<OperationType>(['convert']) })
  await expect(closed({ user: 'ana', submission: payout })).rejects.toMatchObject({
    code: 'invalid-input',
    errors: [{ pointer: '#/type', detail: 'payout is not offered here: PAYOUT_URL is not set' }],
  })
  expect(await closed({ user: 'ana', submission: payout, idempotencyKey: 'k' })).toMatchObject({ id: first })
  expect(fetches()).toBe(1)
  expect(await database.$count(operations)).toBe(1)
  expect(await closed({ user: 'ana', submission: conversion() })).toMatchObject({ status: 'pending' })
})

test('one key submitted many times at once makes one operation and one request', async () => {
  const { submit, database } = await open()
  const answers = await Promise.all(Array.from({ length: 20 }, () => submit(conversion(), 'ana', 'key-1')))
  expect(new Set(answers).size).toBe(1)
  expect(await database.select().from(outbox)).toHaveLength(1)
})

test('of two different inputs submitted at once with one key, one is accepted and the other refused', async () => {
  const { submit, database } = await open()
  const answers = await Promise.all([submit(conversion('1'), 'ana', 'k'), submit(conversion('2'), 'ana', 'k')])
  expect(answers.filter((answer) => answer === 'idempotency-key-reused')).toHaveLength(1)
  expect(await database.select().from(operations)).toHaveLength(1)
})

test('two users may use the same key; an input that differs only in case and order is the same input', async () => {
  const { submit } = await open()
  const first = await submit(conversion(), 'ana', 'k')
  expect(await submit(conversion(), 'bob', 'k')).not.toBe(first)
  expect(await submit({ type: 'convert', input: { amount: '1', to: 'ars', from: 'usd' } }, 'ana', 'k')).toBe(first)
})

test('for a key that was used before nothing is fetched', async () => {
  const { submit, fetches } = await open()
  await submit(conversion(), 'ana', 'k')
  await submit(conversion(), 'ana', 'k')
  await submit(conversion('2'), 'ana', 'k')
  expect(fetches()).toBe(1)
})

test('a conversion is stored with only the rates that it needs; the outbox has the order of acceptance', async () => {
  const { submit, database } = await open()
  const ids = await Promise.all(['1', '2', '3'].map((amount) => submit(conversion(amount))))
  const rows = await database.select().from(outbox).orderBy(asc(outbox.id))
  expect(rows.map(({ operationId }) => operationId)).toEqual(ids)
  const [row] = await database.select().from(operations)
  expect(row?.facts).toEqual({
    ...table,
    rates: [
      { code: 'ARS', rate: '1472.5' },
      { code: 'USD', rate: '1' },
    ],
  })
})

test('a refused submission stores nothing and uses no key up', async () => {
  const { submit, database } = await open()
  expect(await submit({ type: 'convert', input: { from: 'USD', to: 'XYZ', amount: '1' } }, 'ana', 'k')).toBe(
    'unknown-currency',
  )
  expect(await submit(conversion('-1'), 'ana', 'k')).toBe('invalid-input')
  expect(await database.select().from(operations)).toEqual([])
  expect(await submit(conversion(), 'ana', 'k')).toMatch(/^[\w-]{36}$/)
})

test('an idempotency key has 1 to 255 visible ASCII characters; any other is refused', async () => {
  const { submit, database } = await open()
  for (const key of ['', 'x'.repeat(256), 'a key', ' key', 'key ', 'clé', 'key\n'])
    expect([key, await submit(conversion(), 'ana', key)]).toEqual([key, 'malformed-request'])
  expect(await database.select().from(operations)).toEqual([])
  for (const key of ['!', '~'.repeat(255)]) expect(await submit(conversion(), 'ana', key)).toMatch(/^[\w-]{36}$/)
})

test('an operation whose message would be too large is refused, and stores nothing', async () => {
  const { parts, database } = await open()
  const rates = Array.from({ length: 10_000 }, () => ({ code: 'ARS', rate: '1472.5' }))
  const submit = createSubmit({
    ...parts,
    sources: { ...fixedSources, rates: { table: async () => ({ ...table, rates }) } },
  })
  const submission = { type: 'store-rates', input: { base: 'USD' } }
  await expect(submit({ user: 'ana', submission })).rejects.toMatchObject({ code: 'payload-too-large' })
  expect(await database.select().from(operations)).toEqual([])
  expect(await database.select().from(outbox)).toEqual([])
})

test('each refusal says in words what is wrong, and when to try again', async () => {
  const { parts, database, writer } = await open()
  const submit = createSubmit({ ...parts, maxOutboxRows: MAX_PENDING_PER_USER })
  const asked = { user: 'ana', submission: conversion(), idempotencyKey: 'k' }
  await expect(submit({ ...asked, idempotencyKey: '' })).rejects.toThrow(
    'The idempotency key must have 1 to 255 visible ASCII characters.',
  )
  await submit(asked)
  await expect(submit({ ...asked, submission: conversion('2') })).rejects.toThrow(
    'This idempotency key belongs to an operation with another type or input.',
  )
  await Promise.all(
    Array.from({ length: MAX_PENDING_PER_USER - 1 }, () => submit({ ...asked, idempotencyKey: undefined })),
  )
  const refused = () => submit({ user: 'ana', submission: conversion() })
  await expect(refused()).rejects.toMatchObject({ message: 'Too many operations wait to be sent.', retryAfterS: 10 })
  await writer.write([database.delete(outbox)])
  await expect(refused()).rejects.toMatchObject({
    message:
      'You have too many operations pending: at most 100, and 1000 that wait for an answer. Wait until some are done.',
    retryAfterS: 1,
  })
})

test('an operation is answered as it was accepted, and stored with its key, the trace and when it is sent again', async () => {
  const { parts, database } = await open()
  const accepted: string[] = []
  const nowMs = Date.UTC(2026, 10, 23, 12)
  const deps = { newId: () => 'op-1', now: () => nowMs }
  const submit = createSubmit({ ...parts, deps, onAccepted: (type) => accepted.push(type) })
  const trace = continueTrace(undefined)
  const asked = { user: 'ana', submission: conversion(), idempotencyKey: 'k' }
  const operation = await withTrace(trace, () => submit(asked))
  const { input } = conversion()
  expect(operation).toStrictEqual({
    id: 'op-1',
    type: 'convert',
    status: 'pending',
    input,
    createdAt: '2026-11-23T12:00:00.000Z',
  })
  expect(await database.select().from(operations)).toMatchObject([
    {
      ...{ id: 'op-1', userId: 'ana', type: 'convert', input, idempotencyKey: 'k', createdAt: nowMs },
      ...{ traceparent: traceparent(trace), resendAt: nowMs + 120_000, status: 'pending' },
    },
  ])
  expect(await submit(asked)).toEqual(operation)
  expect(accepted).toEqual(['convert'])
})
