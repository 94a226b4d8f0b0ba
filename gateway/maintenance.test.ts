import { expect, test } from 'bun:test'
import { eventually } from '@posta/common/testing/eventually.ts'
import { sql } from 'drizzle-orm'
import { operations, refreshTokens } from './database/schema.ts'
import { maintenance, operationsBefore } from './maintenance.ts'
import { openAccounts } from './testing/accounts.ts'
import { openTemporary } from './testing/database.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const log = { info() {}, warn() {} }
const held = { current: () => ({ epoch: 1, stillHeld: sql`TRUE` }) }
const noKeys = { rotateIfDue: async () => {} }

test('who holds the lease deletes refresh tokens that have expired, and no others, and rotates keys that are due', async () => {
  const { database, keys, enter, refresh, pass, close, ...all } = await openAccounts()
  const { refreshToken } = await enter('old@example.com')
  await refresh({ refreshToken })
  pass(31 * DAY_MS)
  const { user } = await enter('recent@example.com')
  const { kid } = await keys.current()
  const upkeep = maintenance({ ...all, lease: held, keys, log, everyMs: 1 })
  await upkeep.start?.()
  await eventually(async () => (await database.$count(refreshTokens)) === 1 && (await keys.current()).kid !== kid)
  expect(await database.select({ userId: refreshTokens.userId }).from(refreshTokens)).toEqual([{ userId: user.id }])
  await upkeep.close?.(1000)
  await close()
})

test('who does not hold the lease leaves everything as it is; what fails keeps nothing else from being done', async () => {
  const { database, enter, pass, close, ...all } = await openAccounts()
  await enter()
  pass(31 * DAY_MS)
  let looks = 0
  let isHeld = false
  const lease = {
    current() {
      looks += 1
      return isHeld ? held.current() : undefined
    },
  }
  const keys = { rotateIfDue: () => Promise.reject(new Error('not now')) }
  const upkeep = maintenance({ ...all, lease, keys, log, everyMs: 1 })
  await upkeep.start?.()
  await eventually(() => looks > 6)
  expect(await database.$count(refreshTokens)).toBe(1)
  isHeld = true
  await eventually(async () => (await database.$count(refreshTokens)) === 0)
  await upkeep.close?.(1000)
  await close()
})

test('operations go 400 days after they were accepted, however many; pending ones stay, and so do their keys', async () => {
  const { database, writer, close } = await openTemporary()
  const acceptedMs = Date.now()
  let nowMs = acceptedMs
  const row = (status: 'pending' | 'succeeded' | 'failed', createdAt: number, idempotencyKey: string) => ({
    id: Bun.randomUUIDv7('hex', createdAt),
    userId: 'ana',
    type: 'convert' as const,
    status,
    input: {},
    idempotencyKey,
    createdAt,
  })
  const old = Array.from({ length: 1200 }, (_, index) =>
    row(index % 2 ? 'succeeded' : 'failed', acceptedMs, `old ${index}`),
  )
  const others = [row('pending', acceptedMs, 'pending'), row('succeeded', acceptedMs + 1000, 'younger')]
  for (let from = 0; from < old.length; from += 100)
    await writer.write([database.insert(operations).values(old.slice(from, from + 100))])
  await writer.write([database.insert(operations).values(others)])

  const upkeep = maintenance({ lease: held, writer, keys: noKeys, deps: { now: () => nowMs }, log, everyMs: 1 })
  await upkeep.start?.()
  const count = () => database.$count(operations)
  nowMs = acceptedMs + 400 * DAY_MS
  await writer.write([database.insert(operations).values(row('failed', acceptedMs - 1000, 'gone when seen'))])
  await eventually(async () => (await database.$count(operations, sql`idempotency_key = 'gone when seen'`)) === 0)
  expect(await count()).toBe(1202)
  nowMs += 1
  await eventually(async () => (await count()) === 2)
  const left = await database.select({ key: operations.idempotencyKey }).from(operations)
  expect(left.map(({ key }) => key).sort()).toEqual(['pending', 'younger'])
  // The key of an operation that is gone can be used for another one.
  await writer.write([database.insert(operations).values(row('pending', nowMs, 'old 0'))])
  await upkeep.close?.(1000)
  await close()
})

test('old operations are found by the primary key: neither the whole table is read nor anything sorted', async () => {
  const { database, close } = await openTemporary()
  const plan = await database.all<{ detail: string }>(sql`EXPLAIN QUERY PLAN ${operationsBefore(Date.now())(500)}`)
  const steps = plan.map(({ detail }) => detail).join('\n')
  expect(steps).toContain('SEARCH operations USING INDEX sqlite_autoindex_operations_1 (id<?)')
  expect(steps).not.toMatch(/SCAN operations|TEMP B-TREE/)
  await close()
})
