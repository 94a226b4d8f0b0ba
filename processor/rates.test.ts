import { afterAll, beforeAll, expect, test } from 'bun:test'
import { join } from 'node:path'
import { testApp, testVerifier } from '@posta/common/testing/app.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import { rateRoutes } from './rates.ts'
import { resultRoutes } from './rest.ts'
import { succeeded } from './results/results.suite.ts'
import { openEmbedded } from './store/embedded.ts'

const folder = temporaryFolder()
const { results, close } = openEmbedded(join(folder.path, 'processor.db'))
const options = { results, verify: testVerifier(['ana'], []) }
const app = testApp().route('/results', resultRoutes(options)).route('/rates', rateRoutes(options))
const rates = { base: 'USD', date: '2026-11-23', source: 'live' as const, rates: [{ code: 'ARS', rate: '1472.5' }] }

async function get(path: string, token = 'ana') {
  const response = await app.request(path, { headers: { Authorization: `Bearer ${token}` } })
  return { status: response.status, body: await response.json() }
}

beforeAll(async () => {
  const { counts, ...rest } = succeeded('table', { completedAt: '2026-11-23T13:00:00.000Z' })
  await results.append([
    {
      ...rest,
      type: 'store-rates',
      input: { base: 'USD' },
      facts: rates,
      lookup: { key: 'USD', order: '2026-11-23' },
    },
    succeeded('order', { counts: { limit: 'daily-usd', period: '2026-11-23', amount: 10_050_000_000 } }),
  ])
})

afterAll(async () => {
  await close()
  folder.remove()
})

test('the newest table is shown to every user; the code may be in any case', async () => {
  expect(await get('/rates/usd')).toEqual({ status: 200, body: { ...rates, storedAt: '2026-11-23T13:00:00.000Z' } })
})

test('it is 404 if no table is stored, 400 if the path is not a currency code, and 401 without a valid token', async () => {
  expect((await get('/rates/EUR')).status).toBe(404)
  expect((await get('/rates/U$D')).status).toBe(400)
  expect((await get('/rates/USD', 'bad')).status).toBe(401)
})

test('what an order counts against the daily limit is shown in USD', async () => {
  const { body } = await get('/results/order')
  expect(body).toMatchObject({ counts: { limit: 'daily-usd', amount: '100.5' } })
})
