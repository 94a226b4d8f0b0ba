import { afterEach, expect, test } from 'bun:test'
import { systemDeps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { asc } from 'drizzle-orm'
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
  const submit = createSubmit({
    ...opened,
    sources: { ...fixedSources, rates },
    offered: everyType,
    onAccepted: () => {},
    deps: systemDeps,
  })
  return {
    ...opened,
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
