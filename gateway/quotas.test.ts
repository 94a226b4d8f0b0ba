import { afterEach, describe, expect, test } from 'bun:test'
import type { Caller } from '@posta/common/service/auth.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { eq } from 'drizzle-orm'
import * as fc from 'fast-check'
import { openDatabase } from './database/open.ts'
import { operations, usage } from './database/schema.ts'
import { createSubmit } from './operations/submit.ts'
import { defaultQuotas, type Quota, type Quotas } from './quotas.ts'
import { openTemporary } from './testing/database.ts'
import { everyType, fixedSources, submission } from './testing/operations.ts'

const MINUTE_MS = 60_000
const DAY_MS = 24 * 60 * MINUTE_MS
const NOON_MS = Date.UTC(2026, 10, 23, 12)

const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

/** Everything is free but what is given, the same for each role. */
const only = (bounds: Partial<Record<Quota, number>>): Quotas => ({
  ...defaultQuotas,
  ...Object.fromEntries(Object.entries(bounds).map(([quota, bound]) => [quota, { user: bound, operator: bound }])),
})

/** Several gateways on one database, with clocks that stand still. */
async function open(quotas: Quotas) {
  const { url, ...opened } = await openTemporary()
  cleanups.push(opened.close)
  let nowMs = NOON_MS
  /** Another gateway. `aheadMs`: of the clock. */
  async function gateway(aheadMs = 0) {
    const { database, writer, close } = await openDatabase({ url })
    cleanups.push(close)
    const deps = { ...systemDeps, now: () => nowMs + aheadMs }
    const submit = createSubmit({
      database,
      writer,
      sources: fixedSources,
      offered: everyType,
      onAccepted: () => {},
      quotas,
      deps,
    })
    return (asked: { user?: string; role?: Caller['role']; key?: string } = {}) =>
      submit({
        user: asked.user ?? 'ana',
        ...(asked.role && { role: asked.role }),
        submission,
        idempotencyKey: asked.key,
      }).then(
        () => 'accepted',
        (error: unknown) => (error instanceof Problem ? error.code : String(error)),
      )
  }
  return {
    ...opened,
    gateway,
    submit: await gateway(),
    pass(ms: number) {
      nowMs += ms
    },
  }
}

const times = <Answer>(count: number, ask: () => Promise<Answer>) => Promise.all(Array.from({ length: count }, ask))
const accepted = (answers: readonly string[]) => answers.filter((answer) => answer === 'accepted').length

describe("a user's quota", () => {
  test('of submissions in a minute holds over all gateways at once and after a restart, and is free in the next', async () => {
    const { submit, gateway, pass } = await open(only({ 'submissions-per-minute': 7 }))
    const other = await gateway()
    const answers = (await Promise.all([times(10, submit), times(10, other)])).flat()
    expect(accepted(answers)).toBe(7)
    expect(new Set(answers)).toEqual(new Set(['accepted', 'quota-exceeded']))
    expect(await (await gateway())()).toBe('quota-exceeded')
    expect(await submit({ user: 'bob' })).toBe('accepted')
    pass(MINUTE_MS)
    expect(accepted(await times(10, submit))).toBe(7)
  })

  test('of submissions in a day outlasts the minute, and is free on the next UTC day', async () => {
    const { submit, pass } = await open(only({ 'submissions-per-day': 5 }))
    expect(accepted(await times(3, submit))).toBe(3)
    pass(MINUTE_MS)
    expect(accepted(await times(3, submit))).toBe(2)
    pass(DAY_MS / 2 - MINUTE_MS - 1)
    expect(await submit()).toBe('quota-exceeded')
    pass(1)
    expect(await submit()).toBe('accepted')
  })

  test('of bytes counts what is stored of each request, so that nothing beyond it is', async () => {
    const { submit, database } = await open(only({ 'submitted-bytes-per-day': 3000 }))
    const answers = await times(30, submit)
    const [row] = await database.select().from(usage).where(eq(usage.quota, 'submitted-bytes-per-day'))
    expect(row?.used).toBeLessThanOrEqual(3000)
    expect(row?.used).toBeGreaterThan(2000)
    expect(await database.$count(operations)).toBe(accepted(answers))
    expect(await submit()).toBe('quota-exceeded')
  })

  test('is not used up by what is refused, nor by a key that was used before', async () => {
    const { submit } = await open(only({ 'submissions-per-minute': 3 }))
    expect(await times(5, () => submit({ key: 'k' }))).toEqual(Array(5).fill('accepted'))
    expect(await submit({ key: 'k' })).toBe('accepted')
    expect(accepted(await times(5, submit))).toBe(2)
    expect(await submit({ key: 'k' })).toBe('accepted')
  })

  test('may be another for operators', async () => {
    const perMinute = { user: 1, operator: 4 }
    const { submit } = await open({ ...defaultQuotas, 'submissions-per-minute': perMinute })
    expect(accepted(await times(6, submit))).toBe(1)
    expect(accepted(await times(6, () => submit({ user: 'olga', role: 'operator' })))).toBe(4)
  })

  test('is no larger where the clock of one gateway is behind', async () => {
    const { submit, gateway } = await open(only({ 'submissions-per-minute': 4 }))
    const behind = await gateway(-MINUTE_MS)
    expect(accepted(await times(3, submit))).toBe(3)
    expect(accepted(await times(3, behind))).toBe(1)
    expect(await submit()).toBe('quota-exceeded')
  })

  test('says what it is, what is left and when it is free again', async () => {
    const { database, writer } = await open(defaultQuotas)
    const deps = { ...systemDeps, now: () => NOON_MS + 15_000 }
    const quotas = only({ 'submissions-per-minute': 0 })
    const submit = createSubmit({
      database,
      writer,
      sources: fixedSources,
      offered: everyType,
      onAccepted() {},
      quotas,
      deps,
    })
    await expect(submit({ user: 'ana', submission })).rejects.toMatchObject({
      code: 'quota-exceeded',
      retryAfterS: 45,
      rateLimit: { name: 'submissions-per-minute', unit: 'requests', quota: 0, windowS: 60, remaining: 0, resetS: 45 },
    })
  })

  test('whatever users submit in whatever batches, a minute has as many as its bound, or all of them', async () => {
    const { submit, pass } = await open(only({ 'submissions-per-minute': 5 }))
    const users = fc.array(fc.constantFrom('ana', 'bob', 'cleo'), { maxLength: 12 })
    await fc.assert(
      fc.asyncProperty(fc.array(users, { maxLength: 4 }), async (batches) => {
        pass(MINUTE_MS)
        const answers: { user: string; answer: string }[] = []
        for (const batch of batches)
          answers.push(...(await Promise.all(batch.map(async (user) => ({ user, answer: await submit({ user }) })))))
        for (const [, own] of Map.groupBy(answers, ({ user }) => user))
          expect(accepted(own.map(({ answer }) => answer))).toBe(Math.min(5, own.length))
      }),
      { numRuns: 15 },
    )
  })
})
