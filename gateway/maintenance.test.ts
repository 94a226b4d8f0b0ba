import { expect, test } from 'bun:test'
import { eventually } from '@posta/common/testing/eventually.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { sql } from 'drizzle-orm'
import { operations, refreshTokens } from './database/schema.ts'
import { maintenance } from './maintenance.ts'
import { openAccounts } from './testing/accounts.ts'
import { openTemporary } from './testing/database.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const log = { info() {}, warn() {} }
const held = { current: () => ({ epoch: 1, stillHeld: sql`TRUE` }) }
const noKeys = { rotateIfDue: async () => {} }

test('the lease holder deletes refresh tokens that have expired, and no others, and rotates keys that are due', async () => {
  const { database, keys, enter, refresh, pass, close, ...all } = await openAccounts()
  const { refreshToken } = await enter('old@example.com')
  await refresh({ refreshToken })
  pass(31 * DAY_MS)
  const { user } = await enter('recent@example.com')
  const { kid } = await keys.current()
  const component = maintenance({ ...all, lease: held, keys, log, everyMs: 1 })
  await component.start?.()
  await eventually(async () => (await database.$count(refreshTokens)) === 1 && (await keys.current()).kid !== kid)
  expect(await database.select({ userId: refreshTokens.userId }).from(refreshTokens)).toEqual([{ userId: user.id }])
  await component.close?.(1000)
  await close()
})

test('without the lease nothing is changed; a task that fails does not stop the others', async () => {
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
  const component = maintenance({ ...all, lease, keys, log, everyMs: 1 })
  await component.start?.()
  await eventually(() => looks > 6)
  expect(await database.$count(refreshTokens)).toBe(1)
  isHeld = true
  await eventually(async () => (await database.$count(refreshTokens)) === 0)
  await component.close?.(1000)
  await close()
})

test('operations are deleted 400 days after they were accepted, however many; pending ones stay, and so do their keys', async () => {
  const { database, writer, close } = await openTemporary()
  const acceptedMs = Date.now()
  let nowMs = acceptedMs
  const row = (status: 'pending' | 'succeeded' | 'failed', createdAt: number, idempotencyKey: string) => ({
    id: Bun.randomUUIDv7('hex', createdAt),
    userId: 'ana',
    type: sample.type,
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

  const component = maintenance({ lease: held, writer, keys: noKeys, deps: { now: () => nowMs }, log, everyMs: 1 })
  await component.start?.()
  const count = () => database.$count(operations)
  nowMs = acceptedMs + 400 * DAY_MS
  await writer.write([database.insert(operations).values(row('failed', acceptedMs - 1000, 'deleted first'))])
  await eventually(async () => (await database.$count(operations, sql`idempotency_key = 'deleted first'`)) === 0)
  expect(await count()).toBe(1202)
  nowMs += 1
  await eventually(async () => (await count()) === 2)
  const left = await database.select({ key: operations.idempotencyKey }).from(operations)
  expect(left.map(({ key }) => key).sort()).toEqual(['pending', 'younger'])
  // The key of a deleted operation can be used for another one.
  await writer.write([database.insert(operations).values(row('pending', nowMs, 'old 0'))])
  await component.close?.(1000)
  await close()
})
