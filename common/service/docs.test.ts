import { expect, test } from 'bun:test'
import { testApp } from '../testing/app.ts'
import { addDocs } from './docs.ts'
import { createMetrics } from './metrics.ts'

function appWith(metricsToken?: string) {
  const app = testApp()
  const metrics = createMetrics('test')
  addDocs(app, { title: 'Test', description: '', url: 'http://test', links: [], metrics, metricsToken })
  return async (authorization?: string) =>
    (await app.request('/metrics', { headers: authorization === undefined ? {} : { authorization } })).status
}

test('metrics are for whoever has their token, and open where there is none', async () => {
  const closed = appWith('a-token-of-sixteen')
  expect(await closed()).toBe(401)
  expect(await closed('Bearer a-token-of-sixtee')).toBe(401)
  expect(await closed('Basic YTpi')).toBe(401)
  expect(await appWith('a-token-of-sixteen')('Bearer a-token-of-sixteen')).toBe(200)
  expect(await appWith()()).toBe(200)
})
