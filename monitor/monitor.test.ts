import { afterEach, beforeEach, expect, test } from 'bun:test'
import type { Broker } from '@posta/common/broker/broker.ts'
import { openBroker } from '@posta/common/broker/open.ts'
import { type Deps, systemDeps } from '@posta/common/service/deps.ts'
import { type Listener, listen } from '@posta/common/service/listener.ts'
import { createLog } from '@posta/common/service/log.ts'
import type { Service } from '@posta/common/service/service.ts'
import { PublicKey, signAccessToken } from '@posta/common/service/tokens.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import * as v from 'valibot'
import { readMonitorConfig } from './config.ts'
import { createMonitor } from './monitor.ts'
import { loggedIn, requested, succeeded } from './testing/messages.ts'

const ISSUER = 'http://gateway.test'

let folder: ReturnType<typeof temporaryFolder>
let broker: Broker
let service: Service
let listener: Listener
let url: string
let tokenOf: (user: string, role: 'user' | 'operator') => Promise<string>

/** A signing key, and a fetch that answers with its public half wherever the keys are asked for. */
async function createKeys() {
  const { privateKey } = await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])
  const { d = '', ...exported } = await crypto.subtle.exportKey('jwk', privateKey)
  const key = v.parse(PublicKey, { ...exported, kid: 'test', alg: 'EdDSA', use: 'sig' })
  const keys = { keys: [key] }
  return {
    fetch: Object.assign(async () => Response.json(keys), { preconnect: fetch.preconnect }) satisfies typeof fetch,
    tokenOf: async (user: string, role: 'user' | 'operator') => {
      const now = Math.floor(Date.now() / 1000)
      const claims = { iss: ISSUER, aud: 'posta', sub: user, role, jti: user, iat: now, exp: now + 60 }
      return signAccessToken(claims, { ...key, d })
    },
  }
}

beforeEach(async () => {
  folder = temporaryFolder()
  const keys = await createKeys()
  tokenOf = keys.tokenOf
  const deps: Deps = { ...systemDeps, fetch: keys.fetch }
  listener = listen('127.0.0.1', 0)
  const config = readMonitorConfig({
    DATA_DIR: folder.path,
    MONITOR_PORT: String(listener.port),
    TOKEN_ISSUER: ISSUER,
    LOG_LEVEL: 'silent',
  })
  url = config.urls.monitor
  broker = openBroker({ url: config.broker.url, clientId: 'test', log: createLog('test', 'silent'), deps })
  service = await createMonitor(config, deps, listener)
  await service.start()
})

afterEach(async () => {
  await service.close()
  await broker.close()
  folder.remove()
})

const Page = v.object({ items: v.array(v.looseObject({ id: v.string(), status: v.optional(v.string()) })) })
const itemsOf = (answer: unknown) => v.parse(Page, answer).items

async function ask(path: string, token?: string, method = 'GET'): Promise<unknown> {
  const response = await fetch(url + path, { method, ...(token && { headers: { Authorization: `Bearer ${token}` } }) })
  return response.json()
}

/** Asks until there are so many items. */
async function itemsAt(path: string, token: string, count: number) {
  let items: ReturnType<typeof itemsOf> = []
  await eventually(async () => {
    items = itemsOf(await ask(path, token))
    return items.length === count
  })
  return items
}

test('a user can ask for the events of messages that were sent over the broker', async () => {
  await broker.publish([loggedIn('login'), requested('op-1'), succeeded('op-1'), loggedIn('of bob', 'bob')])
  const ana = await tokenOf('ana', 'user')
  const items = await itemsAt('/events', ana, 3)
  expect(items.map(({ id }) => id).toSorted()).toEqual(['login', 'op-1.requested', 'op-1.succeeded'])
  expect(await ask('/operations/op-1/timeline', ana)).toMatchObject({
    items: [{ type: 'posta.operation.requested' }, { type: 'posta.operation.succeeded', sincePreviousMs: 40 }],
  })
  expect(await ask('/audit/verify', await tokenOf('olga', 'operator'))).toMatchObject({ ok: true, events: 4 })
  const metrics = await (await fetch(`${url}/metrics`)).text()
  expect(metrics).toMatch(/posta_messages_read_total\{topic="posta.events",kind="event",.*\} 2\n/)
  expect(metrics).toMatch(/posta_consumer_lag\{.*topic="posta.events".*\} 0\n/)
})

test('an unreadable event becomes one dead letter, later events are stored, and a redrive is an event', async () => {
  const bad = { ...loggedIn('bad'), value: Buffer.from('{') }
  await broker.publish([bad, loggedIn('behind')])
  const olga = await tokenOf('olga', 'operator')
  const items = await itemsAt('/dead-letters', olga, 1)
  expect(items[0]).toMatchObject({ group: 'posta.monitor', topic: 'posta.events', status: 'open', preview: '{' })
  await itemsAt('/events?type=posta.user.logged-in', olga, 1)
  await itemsAt('/events?type=posta.message.dead-lettered', olga, 1)

  expect(await ask(`/dead-letters/${items[0]?.id}/redrive`, olga, 'POST')).toMatchObject({ status: 'redriven' })
  const redrives = await itemsAt('/events?type=posta.dead-letter.redriven', olga, 1)
  expect(redrives[0]?.data).toMatchObject({ deadLetter: items[0]?.id, by: 'olga' })
  // It still cannot be read: that is a dead letter of its own.
  const again = await itemsAt('/dead-letters', olga, 2)
  expect(again.map(({ status }) => status).toSorted()).toEqual(['open', 'redriven'])
})

test('monitor answers its health, serves the dashboard, and describes every route', async () => {
  expect(await ask('/health/live')).toEqual({ status: 'ok' })
  expect(await ask('/health/ready')).toMatchObject({ status: 'ok', parts: { store: {}, broker: {}, events: {} } })
  const page = await fetch(url)
  expect(page.headers.get('Content-Type')).toStartWith('text/html')
  expect(page.headers.get('Content-Security-Policy')).toContain("script-src 'self'")
  const { paths } = v.parse(v.object({ paths: v.looseObject({}) }), await ask('/openapi.json'))
  expect(Object.keys(paths)).toEqual(
    expect.arrayContaining([
      '/events',
      '/events/stream',
      '/events/{id}',
      '/operations/{id}/timeline',
      '/stats',
      '/audit/verify',
      '/audit/heads',
      '/audit/checkpoints',
      '/audit/checkpoints/latest',
      '/dead-letters',
      '/dead-letters/{id}',
      '/dead-letters/{id}/redrive',
      '/dead-letters/{id}/discard',
      '/dead-letters/redrive',
      '/dead-letters/discard',
    ]),
  )
})

test('closing ends the open streams', async () => {
  const headers = { Authorization: `Bearer ${await tokenOf('olga', 'operator')}` }
  const response = await fetch(`${url}/events/stream`, { headers })
  const reader = response.body?.getReader()
  await reader?.read()
  const closed = service.close()
  const decoder = new TextDecoder()
  let text = ''
  for (;;) {
    const { value, done } = (await reader?.read()) ?? { done: true }
    if (done) break
    text += decoder.decode(value)
  }
  expect(text).toContain('event: end')
  await closed
})
