import { afterEach, beforeEach, expect, test } from 'bun:test'
import { type Behaviour, type FakeApi, fakeRates, startFakeApi } from '../testing/fake-rates-api.ts'
import { createRates } from './rates.ts'
import { bundledSnapshot } from './snapshot.ts'

const HOUR_MS = 60 * 60 * 1000
const DAY_MS = 24 * HOUR_MS
const PAUSE_MS = 15_000
const snapshot = bundledSnapshot()
const snapshotDate = (await snapshot.table('USD')).date
const noonMs = Date.parse(snapshotDate) + 30 * DAY_MS + 12 * HOUR_MS
const dayOf = (ms: number) => new Date(ms).toISOString().slice(0, 10)
const today = dayOf(noonMs)

let api: FakeApi
let mirror: FakeApi
let passedMs = 0
let warnings: object[] = []

beforeEach(() => {
  api = startFakeApi()
  mirror = startFakeApi()
  for (const each of [api, mirror]) each.setDate(today)
  passedMs = 0
  warnings = []
})
afterEach(() => Promise.all([api.stop(), mirror.stop()]))

/** The public hosts' names lead to the two fakes. */
const routed = Object.assign(
  (input: string | URL | Request, init?: RequestInit) => {
    const request = input instanceof Request ? input : new Request(String(input), init)
    const to = request.url
      .replace('https://cdn.jsdelivr.net/npm/@fawazahmed0/currency-api@latest', api.url)
      .replace('https://latest.currency-api.pages.dev', mirror.url)
    return fetch(to, { redirect: request.redirect, signal: request.signal })
  },
  { preconnect: fetch.preconnect },
)

const deps = { now: () => noonMs + passedMs, monotonicMs: () => 1000 + passedMs, fetch: routed }
const log = { warn: (facts: object) => warnings.push(facts) }
const open = (url?: string, budgetMs = 4000) => createRates({ url, budgetMs, deps, log, snapshot })
const rateOf = (table: { rates: { code: string; rate: string }[] }, code: string) =>
  table.rates.find((each) => each.code === code)?.rate
const behaveBoth = (behaviour: Behaviour) => {
  api.behave(behaviour)
  mirror.behave(behaviour)
}
const askedCount = () => api.asked.length + mirror.asked.length

test('an answer of the public API has the source live', async () => {
  const table = await open().table('USD')
  expect(table).toMatchObject({ base: 'USD', date: today, source: 'live' })
  expect([rateOf(table, 'ARS'), rateOf(table, 'USD')]).toEqual([String(fakeRates.ars), '1'])
  expect(mirror.asked).toEqual([])
})

test.each<Behaviour>(['busy', 'slow', 'negative', 'not-found', 'redirect'])(
  'where the public API is %s the table comes from the mirror, and its source says so',
  async (behaviour) => {
    api.behave(behaviour)
    expect(await open(undefined, 1000).table('USD')).toMatchObject({ date: today, source: 'mirror' })
  },
)

test.each<Behaviour>([
  'down',
  'busy',
  'slow',
  'stalled',
  'huge',
  'nan',
  'negative',
  'wrong-shape',
  'redirect',
  'not-found',
])('where both hosts are %s the table comes from the snapshot, with its own day', async (behaviour) => {
  behaveBoth(behaviour)
  const startMs = performance.now()
  const table = await open(undefined, 600).table('USD')
  expect(table).toMatchObject({ date: snapshotDate, source: 'bundled' })
  expect(performance.now() - startMs).toBeLessThan(1600)
})

test('an answer is served again for an hour, with the source cache', async () => {
  const rates = open()
  const live = await rates.table('USD')
  passedMs = HOUR_MS - 1
  expect(await rates.table('USD')).toEqual({ ...live, source: 'cache' })
  expect(askedCount()).toBe(1)
  passedMs = HOUR_MS
  expect(await rates.table('USD')).toMatchObject({ source: 'live' })
  expect(askedCount()).toBe(2)
})

test('a new UTC day is fetched at once', async () => {
  const rates = open()
  passedMs = 12 * HOUR_MS - 1
  await rates.table('USD')
  passedMs += 1
  api.setDate(dayOf(noonMs + passedMs))
  expect(await rates.table('USD')).toMatchObject({ source: 'live', date: dayOf(noonMs + DAY_MS) })
})

test('while the hosts are down an earlier answer is served, with its own day', async () => {
  const rates = open()
  await rates.table('USD')
  behaveBoth('busy')
  passedMs = 2 * DAY_MS
  expect(await rates.table('USD')).toMatchObject({ source: 'cache', date: today })
})

test('an answer of an earlier day than the table at hand is refused', async () => {
  const rates = open()
  await rates.table('USD')
  passedMs = DAY_MS
  for (const each of [api, mirror]) each.setDate(dayOf(noonMs - DAY_MS))
  expect(await rates.table('USD')).toMatchObject({ source: 'cache', date: today })
  for (const each of [api, mirror]) each.setDate(dayOf(Date.parse(snapshotDate) - DAY_MS))
  expect(await rates.table('EUR')).toMatchObject({ source: 'bundled', date: snapshotDate })
})

test('calls at the same time share one request', async () => {
  const rates = open()
  const tables = await Promise.all(Array.from({ length: 50 }, () => rates.table('USD')))
  expect(new Set(tables.map(({ source }) => source))).toEqual(new Set(['live']))
  expect(askedCount()).toBe(1)
})

test('after an outage no host is asked for a while, for any currency, and then by one request first', async () => {
  behaveBoth('busy')
  const rates = open()
  await rates.table('USD')
  expect(askedCount()).toBe(2)
  passedMs = PAUSE_MS - 1
  for (const base of ['USD', 'EUR', 'ARS']) expect(await rates.table(base)).toMatchObject({ source: 'bundled' })
  expect(askedCount()).toBe(2)
  passedMs = PAUSE_MS
  await Promise.all(['USD', 'EUR', 'ARS'].map((base) => rates.table(base)))
  expect(askedCount()).toBe(4)
  behaveBoth('ok')
  passedMs = 2 * PAUSE_MS
  expect(await rates.table('USD')).toMatchObject({ source: 'live' })
  expect(await rates.table('EUR')).toMatchObject({ source: 'live' })
})

test('a currency that the hosts lack or answer wrongly does not stop the others', async () => {
  behaveBoth('not-found')
  const rates = open()
  expect(await rates.table('SHIB')).toMatchObject({ source: 'bundled' })
  behaveBoth('ok')
  expect(await rates.table('USD')).toMatchObject({ source: 'live' })
  expect(await rates.table('SHIB')).toMatchObject({ source: 'bundled' })
  passedMs = PAUSE_MS
  expect(await rates.table('SHIB')).toMatchObject({ source: 'live' })
})

test.each(['XQZ', 'usd', '../USD', '__PROTO__', ''])(
  '%p is an unknown currency, and no host is asked for it',
  async (base) => {
    await expect(open().table(base)).rejects.toMatchObject({ code: 'unknown-currency' })
    expect(askedCount()).toBe(0)
  },
)

test('with bundled: nothing is fetched', async () => {
  expect(await open('bundled:').table('USD')).toMatchObject({ source: 'bundled', date: snapshotDate })
  expect(askedCount()).toBe(0)
})

test("the operator's base URL is the only host, and has the same fallbacks", async () => {
  const rates = open(`${api.url}/elsewhere/`)
  expect(await rates.table('USD')).toMatchObject({ source: 'live' })
  expect(api.asked).toEqual(['/elsewhere/v1/currencies/usd.json'])
  await api.stop()
  passedMs = HOUR_MS
  expect(await rates.table('USD')).toMatchObject({ source: 'cache' })
  expect(await rates.table('EUR')).toMatchObject({ source: 'bundled' })
  expect(mirror.asked).toEqual([])
})

test('without a network the snapshot answers at once', async () => {
  await Promise.all([api.stop(), mirror.stop()])
  const startMs = performance.now()
  expect(await open().table('USD')).toMatchObject({ source: 'bundled' })
  expect(performance.now() - startMs).toBeLessThan(1000)
})

test('each host that failed is logged, by name and reason', async () => {
  behaveBoth('negative')
  await open().table('USD')
  expect(warnings).toEqual([
    expect.objectContaining({ host: 'cdn.jsdelivr.net', base: 'USD', reason: expect.stringContaining('rate of ars') }),
    expect.objectContaining({ host: 'latest.currency-api.pages.dev', base: 'USD' }),
  ])
})

test('without any fallback the problem says when to try again', async () => {
  behaveBoth('busy')
  const broken = { has: () => true, table: () => Promise.reject(new Error('no such file')) }
  const rates = createRates({ deps, log, snapshot: broken })
  await expect(rates.table('USD')).rejects.toMatchObject({ code: 'rates-unavailable', retryAfterS: 15 })
  behaveBoth('ok')
  passedMs = PAUSE_MS
  expect(await rates.table('USD')).toMatchObject({ source: 'live' })
})
