import { afterEach, expect, test } from 'bun:test'
import { generateKeyPairSync } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { openEmbedded } from '@posta/common/broker/embedded/embedded.ts'
import type { Delivered } from '@posta/common/messages/message.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import { NAME } from '@posta/common/name.ts'
import { type Deps, systemDeps } from '@posta/common/service/deps.ts'
import { listen } from '@posta/common/service/listener.ts'
import { PublicKey, signAccessToken } from '@posta/common/service/tokens.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import * as v from 'valibot'
import { readProcessorConfig } from './config.ts'
import { createProcessor } from './processor.ts'
import { requested } from './testing/requests.ts'

const cleanups: (() => Promise<void> | void)[] = []

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const issuer = 'http://gateway.test'

/** What gateway gives: a key set, and a token that it signed. */
async function keys() {
  const { d = '', ...exported } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  const key = v.parse(PublicKey, { ...exported, kid: 'k1', alg: 'EdDSA', use: 'sig' })
  const answer = async () => Response.json({ keys: [key] })
  const nowS = Math.floor(Date.now() / 1000)
  const claims = { iss: issuer, aud: NAME, sub: 'ana', role: 'user' as const, jti: '1', iat: nowS, exp: nowS + 900 }
  return { fetch: Object.assign(answer, { preconnect() {} }), token: signAccessToken(claims, { ...key, d }) }
}

async function start(folder: string, deps: Partial<Deps> = {}) {
  const listener = listen('127.0.0.1', 0)
  const environment = {
    DATA_DIR: folder,
    TOKEN_ISSUER: issuer,
    PROCESSOR_PORT: String(listener.port),
    LOG_LEVEL: 'silent',
    PROCESSOR_STORE_URL: `file:${join(folder, 'store', 'processor.db')}`,
  }
  const service = createProcessor(readProcessorConfig(environment), { ...systemDeps, ...deps }, listener)
  cleanups.push(() => service.close())
  await service.start()
  return { service, url: `http://127.0.0.1:${service.port}` }
}

function temporary(): string {
  const { path, remove } = temporaryFolder()
  cleanups.push(remove)
  return path
}

test('a request on the broker is answered on the broker, and its result is served over HTTP', async () => {
  const folder = temporary()
  const { fetch: fetchKeys, token } = await keys()
  const { url } = await start(folder, { fetch: fetchKeys })
  const broker = openEmbedded({ path: join(folder, 'broker.db') })
  cleanups.push(() => broker.close())
  const replies: Delivered[] = []
  await broker.subscribe(groups.gateway, [topics.results], async ({ messages }) => void replies.push(...messages))

  await broker.publish([requested('op-1', { input: sample.input(7) })])
  await eventually(() => replies.length > 0)

  const authorization = { headers: { Authorization: `Bearer ${token}` } }
  const result = await fetch(`${url}/results/op-1`, authorization)
  expect(await result.json()).toMatchObject({
    status: 'succeeded',
    output: sample.output(7),
    counts: { limit: 'daily-usd', amount: '7' }, // example
  })
  expect((await fetch(`${url}/results/op-1`)).status).toBe(401)

  const ready = await fetch(`${url}/health/ready`)
  expect(ready.status).toBe(200)
  expect(await ready.json()).toMatchObject({ status: 'ok' })
  const metrics = await (await fetch(`${url}/metrics`)).text()
  expect(metrics).toMatch(new RegExp(`posta_operations_performed_total{type="${sample.type}",status="succeeded",.*} 1`))
  expect(metrics).toMatch(/posta_consumer_lag\{topic="posta.requests",partition="0",.*\} 0/)
})

test('while the store fails, readiness says so and requests wait; they are performed once it is back', async () => {
  const folder = temporary()
  const damaged = join(folder, 'store', 'processor.db')
  await Bun.write(damaged, 'not a database'.repeat(100))
  const { fetch: fetchKeys, token } = await keys()
  const { url } = await start(folder, { fetch: fetchKeys })
  const broker = openEmbedded({ path: join(folder, 'broker.db') })
  cleanups.push(() => broker.close())
  const replies: Delivered[] = []
  await broker.subscribe(groups.gateway, [topics.results], async ({ messages }) => void replies.push(...messages))
  await broker.publish([requested('op-1')])

  const Ready = v.object({ status: v.string(), parts: v.record(v.string(), v.object({ status: v.string() })) })
  const readiness = async () => {
    const response = await fetch(`${url}/health/ready`)
    expect(response.status).toBe(200)
    return v.parse(Ready, await response.json())
  }
  await eventually(async () => (await readiness()).parts.requests?.status === 'failing')
  expect(await readiness()).toMatchObject({
    status: 'degraded',
    parts: { store: { status: 'failing' }, broker: { status: 'ok' } },
  })
  expect(replies).toEqual([])
  const refused = await fetch(`${url}/results/op-1`, { headers: { Authorization: `Bearer ${token}` } })
  expect([refused.status, refused.headers.get('Retry-After')]).toEqual([503, '5'])
  expect(await refused.json()).toMatchObject({ type: '/problems/unavailable', code: 'unavailable' })

  rmSync(damaged)
  await eventually(() => replies.length > 0)
  await eventually(async () => (await readiness()).status === 'ok')
})

test('its OpenAPI document describes every route', async () => {
  const { url } = await start(temporary())
  const Api = v.object({
    paths: v.record(v.string(), v.record(v.string(), v.looseObject({ responses: v.record(v.string(), v.unknown()) }))),
  })
  const { paths } = v.parse(Api, await (await fetch(`${url}/openapi.json`)).json())
  expect(Object.keys(paths).sort()).toEqual([
    '/rates/{base}', // example
    '/results',
    '/results/{id}',
    '/runs',
    '/runs/paused',
    '/runs/paused/{type}',
    '/runs/{id}',
  ])
  expect(Object.keys(paths['/results/{id}']?.get?.responses ?? {})).toEqual(['200', '401', '404', '503'])
  expect((await fetch(`${url}/docs`)).status).toBe(200)
  expect((await fetch(`${url}/problems/limit-exceeded`)).status).toBe(200)
})
