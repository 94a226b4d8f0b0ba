import { expect, test } from 'bun:test'
import { at, NOON_MS } from '../testing/messages.ts'
import type { MinuteCount, Minutes } from './events.ts'
import { minuteOf } from './record.ts'
import { createStats } from './stats.ts'

const NOON = minuteOf(NOON_MS)

function setUp(counts: MinuteCount[] = []) {
  const asked: Minutes[] = []
  let nowMs = NOON_MS + 30_000
  let failure: Error | undefined
  const stats = createStats(
    {
      countByMinute: async (minutes) => {
        asked.push(minutes)
        if (failure) throw failure
        return counts.filter(({ minute }) => minute >= minutes.first && minute <= minutes.last)
      },
      durations: async ({ last }) =>
        last === NOON ? { totalMs: 100, longestMs: 60 } : { totalMs: 900, longestMs: 500 },
    },
    { now: () => nowMs },
  )
  return {
    stats,
    asked,
    counts,
    pass: (ms: number) => {
      nowMs += ms
    },
    fail: (error: Error | undefined) => {
      failure = error
    },
  }
}

const count = (minute: number, type: string, times: number): MinuteCount => ({ minute, type, count: times })

test('the last hour is counted by type and by minute', async () => {
  const { stats } = setUp([
    count(NOON, 'posta.user.logged-in', 2),
    count(NOON, 'posta.operation.failed', 1),
    count(NOON - 59, 'posta.user.logged-in', 3),
    count(NOON - 59, 'posta.user.login-failed', 7),
    count(NOON - 20, 'posta.operation.succeeded', 9),
    count(NOON - 60, 'posta.user.logged-in', 1000),
  ])
  expect(await stats()).toEqual({
    from: at(-59 * 60_000),
    until: at(60_000),
    types: {
      'posta.user.logged-in': 5,
      'posta.user.login-failed': 7,
      'posta.operation.succeeded': 9,
      'posta.operation.failed': 1,
    },
    logins: 5,
    failedLogins: 7,
    failedOperations: 1,
    latency: { operations: 10, averageMs: 100, maxMs: 500 },
    minutes: [
      { minute: at(0), types: { 'posta.user.logged-in': 2, 'posta.operation.failed': 1 } },
      { minute: at(-20 * 60_000), types: { 'posta.operation.succeeded': 9 } },
      { minute: at(-59 * 60_000), types: { 'posta.user.logged-in': 3, 'posta.user.login-failed': 7 } },
    ],
  })
})

test('an hour without events has only zeros', async () => {
  const stats = createStats(
    { countByMinute: async () => [], durations: async () => ({ totalMs: 0, longestMs: 0 }) },
    { now: () => NOON_MS },
  )
  expect(await stats()).toMatchObject({ types: {}, logins: 0, latency: { operations: 0, averageMs: 0, maxMs: 0 } })
})

test('the newest minutes are counted at every call, the others once a minute', async () => {
  const { stats, asked, pass } = setUp()
  await Promise.all([stats(), stats(), stats()])
  const newest = { first: NOON - 2, last: NOON }
  const earlier = { first: NOON - 59, last: NOON - 3 }
  expect(asked.filter(({ last }) => last === NOON)).toEqual([newest, newest, newest])
  expect(asked.filter(({ last }) => last < NOON)).toEqual([earlier])
  pass(60_000)
  await stats()
  expect(asked.slice(-2)).toContainEqual({ first: NOON - 58, last: NOON - 2 })
})

test('an event that comes late is counted within a minute', async () => {
  const { stats, counts, pass } = setUp()
  expect((await stats()).logins).toBe(0)
  counts.push(count(NOON - 30, 'posta.user.logged-in', 1))
  pass(60_000)
  expect((await stats()).logins).toBe(1)
})

test('a failure of the store is not remembered', async () => {
  const { stats, fail } = setUp([count(NOON - 30, 'posta.user.logged-in', 1)])
  fail(new Error('down'))
  await expect(stats()).rejects.toThrow('down')
  fail(undefined)
  expect((await stats()).logins).toBe(1)
})
