import { expect, test } from 'bun:test'
import { sql } from 'drizzle-orm'
import { refreshTokens } from '../database/schema.ts'
import { eventually } from '../database/temporary.ts'
import { openAccounts } from './fixture.ts'
import { keepUp } from './upkeep.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const log = { warn() {} }

test('who holds the lease deletes refresh tokens that have expired, and no others, and rotates keys that are due', async () => {
  const { database, keys, enter, refresh, pass, close, ...all } = await openAccounts()
  const { refreshToken } = await enter('old@example.com')
  await refresh({ refreshToken })
  pass(31 * DAY_MS)
  const { user } = await enter('recent@example.com')
  const { kid } = await keys.current()
  const lease = { current: () => ({ epoch: 1, stillHeld: sql`TRUE` }) }
  const upkeep = keepUp({ ...all, lease, keys, log, everyMs: 1 })
  await eventually(async () => (await database.$count(refreshTokens)) === 1 && (await keys.current()).kid !== kid)
  expect(await database.select({ userId: refreshTokens.userId }).from(refreshTokens)).toEqual([{ userId: user.id }])
  await upkeep.close()
  await close()
})

test('who does not hold the lease leaves everything as it is; what fails is tried again', async () => {
  const { database, enter, pass, close, ...all } = await openAccounts()
  await enter()
  pass(31 * DAY_MS)
  let looks = 0
  let isHeld = false
  const lease = {
    current() {
      looks += 1
      return isHeld ? { epoch: 1, stillHeld: sql`TRUE` } : undefined
    },
  }
  let failures = 0
  const keys = {
    async rotateIfDue() {
      if (failures++ < 2) throw new Error('not now')
    },
  }
  const upkeep = keepUp({ ...all, lease, keys, log, everyMs: 1 })
  await eventually(() => looks > 3)
  expect(await database.$count(refreshTokens)).toBe(1)
  isHeld = true
  await eventually(async () => (await database.$count(refreshTokens)) === 0)
  expect(failures).toBeGreaterThan(2)
  await upkeep.close()
  await close()
})
