import { afterAll, beforeEach, expect, test } from 'bun:test'
import { type Behaviour, startFakeApi } from '../testing/fake-rates-api.ts'
import { askHost } from './ask-host.ts'

const api = startFakeApi()
const limits = { budgetMs: 2000, tryMs: 200, notBefore: '2026-11-20', notAfter: '2026-11-24' }
const ask = (fetch: typeof globalThis.fetch = globalThis.fetch, url = api.url) =>
  askHost({ url, source: 'live' }, 'USD', limits, { fetch })

beforeEach(() => {
  api.behave('ok')
  api.setDate('2026-11-23')
})
afterAll(() => api.stop())

test('a table is fetched by the code in lower case, and has its day and its source', async () => {
  expect(await ask()).toMatchObject({ table: { base: 'USD', date: '2026-11-23', source: 'live' } })
  expect(api.asked.at(-1)).toBe('/v1/currencies/usd.json')
})

test.each<[Behaviour, string, boolean]>([
  ['slow', 'no answer in time', true],
  ['stalled', 'no answer in time', true],
  ['down', 'status 500', true],
  ['busy', 'status 503', true],
  ['huge', 'the answer has more than 1048576 bytes', false],
  ['not-json', 'the answer is not JSON', false],
  ['nan', 'the answer is not JSON', false],
  ['null-rate', 'the answer cannot be used: its rate of ars is no plausible number', false],
  ['negative', 'the answer cannot be used: its rate of ars is no plausible number', false],
  ['zero', 'the answer cannot be used: its rate of ars is no plausible number', false],
  ['wrong-shape', 'the answer cannot be used: its rate of 0 is no plausible number', false],
  ['other-base', 'the answer cannot be used: its base is not worth one of itself', false],
  ['redirect', 'status 302', false],
  ['not-found', 'status 404', false],
])('a host that is %s gives no table, but the reason', async (behaviour, failure, down) => {
  api.behave(behaviour)
  expect(await ask()).toEqual({ failure, down })
})

test('an answer of 50 MB is cut off while it arrives', async () => {
  api.behave('huge')
  const before = api.hugeBytes
  await ask()
  // What the two ends of the connection hold in their buffers comes on top of the limit.
  expect(api.hugeBytes - before).toBeGreaterThan(0)
  expect(api.hugeBytes - before).toBeLessThan(16 * 1024 * 1024)
})

test('a redirect is not followed', async () => {
  api.behave('redirect')
  await ask()
  expect(api.asked.filter((path) => path.startsWith('/elsewhere'))).toEqual([])
})

test('a host that failed for a moment is asked again, at most twice', async () => {
  api.behave('down', 'down', 'ok')
  expect(await ask()).toHaveProperty('table')
  const before = api.asked.length
  api.behave('down')
  expect(await ask()).toHaveProperty('failure')
  expect(api.asked.length - before).toBe(3)
})

test('a request whose connection breaks off is sent again', async () => {
  let tries = 0
  const breaksOffOnce = Object.assign(
    async (...args: Parameters<typeof fetch>) => {
      tries += 1
      if (tries === 1) throw Object.assign(new TypeError('broken off'), { code: 'ECONNRESET' })
      return fetch(...args)
    },
    { preconnect: fetch.preconnect },
  )
  expect(await ask(breaksOffOnce)).toHaveProperty('table')
})

test.each<Behaviour>(['busy', 'not-found', 'negative'])('a host that is %s is not asked again', async (behaviour) => {
  api.behave(behaviour)
  const before = api.asked.length
  await ask()
  expect(api.asked.length - before).toBe(1)
})

test('a host that cannot be reached is given up at once', async () => {
  const gone = startFakeApi()
  await gone.stop()
  const startMs = performance.now()
  expect(await ask(fetch, gone.url)).toEqual({ failure: 'ECONNREFUSED', down: true })
  expect(performance.now() - startMs).toBeLessThan(limits.tryMs)
})

test('the budget is kept however the host fails', async () => {
  api.behave('down', 'slow')
  const startMs = performance.now()
  await askHost({ url: api.url, source: 'live' }, 'USD', { ...limits, budgetMs: 300, tryMs: 300 }, { fetch })
  expect(performance.now() - startMs).toBeLessThan(600)
})

test.each([
  ['2026-11-19', 'the answer is of 2026-11-19, older than the table at hand'],
  ['2026-11-25', 'the answer is of a day in the future, 2026-11-25'],
])('a table of %s is refused', async (date, failure) => {
  api.setDate(date)
  expect(await ask()).toEqual({ failure, down: false })
})

test.each(['2026-11-20', '2026-11-24'])('a table of %s, at the limit, is accepted', async (date) => {
  api.setDate(date)
  expect(await ask()).toMatchObject({ table: { date } })
})

test("a failure does not repeat a secret in the host's URL", async () => {
  api.behave('not-found')
  const asked = await ask(fetch, `${api.url}/secret`)
  expect(JSON.stringify(asked)).not.toContain('secret')
})
