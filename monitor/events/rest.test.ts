import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type Deps, systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { testApp, testVerifier } from '@posta/common/testing/app.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import type { Hono } from 'hono'
import * as v from 'valibot'
import { openEmbedded } from '../store/embedded.ts'
import type { Store } from '../store/store.ts'
import { at, deliver, failed, loggedIn, NOON_MS, progressed, requested, succeeded } from '../testing/messages.ts'
import { createAppend } from './append.ts'
import { toEvent } from './record.ts'
import { eventRoutes } from './rest.ts'
import { createStats } from './stats.ts'
import { createStream } from './stream.ts'
import { createTimeline } from './timeline.ts'

const verify = testVerifier(['ana', 'bob'], ['olga'])
const log = createLog('monitor', 'silent')
const deps: Deps = { ...systemDeps, now: () => NOON_MS }

let folder: ReturnType<typeof temporaryFolder>
let store: Store
let app: Hono
let closing: AbortController

beforeEach(async () => {
  folder = temporaryFolder()
  store = openEmbedded(join(folder.path, 'monitor.db'))
  closing = new AbortController()
  const { events } = store
  app = testApp(deps)
  app.route(
    '/',
    eventRoutes({
      events,
      timeline: createTimeline(events),
      stats: createStats(events, deps),
      stream: createStream({ events, deps, log }),
      verify,
      closing: closing.signal,
    }),
  )
  await createAppend(events)(
    [
      loggedIn('login-ana', 'ana', 0),
      requested('op-1', 'ana', 1000),
      succeeded('op-1', 'ana', 1040),
      loggedIn('login-bob', 'bob', 2000),
    ].map((message, offset) => toEvent(deliver(message, offset), NOON_MS)),
  )
})

afterEach(async () => {
  closing.abort()
  await store.close()
  folder.remove()
})

const Page = v.object({ items: v.array(v.looseObject({ id: v.string() })), next: v.optional(v.string()) })

async function ask(path: string, token?: string, init: RequestInit = {}) {
  const headers = { ...(token !== undefined && { Authorization: `Bearer ${token}` }), ...init.headers }
  const response = await app.request(path, { ...init, headers })
  const body: unknown = await response.json()
  return { status: response.status, headers: response.headers, body }
}

const pageOf = ({ body }: { readonly body: unknown }) => v.parse(Page, body)
const idsOf = (answer: { readonly body: unknown }) => pageOf(answer).items.map(({ id }) => id)

describe('GET /events', () => {
  test("answers a user's own events, newest first", async () => {
    const answer = await ask('/events', 'ana')
    expect(answer.status).toBe(200)
    expect(answer.headers.get('Cache-Control')).toBe('no-store')
    expect(idsOf(answer)).toEqual(['op-1.succeeded', 'op-1.requested', 'login-ana'])
    expect(pageOf(answer).items[2]).toEqual({
      id: 'login-ana',
      type: 'posta.user.logged-in',
      time: at(0),
      user: 'ana',
      topic: 'posta.events',
      partition: 0,
      offset: 0,
      receivedAt: at(0),
      data: { user: 'ana', session: 'login-ana.session' },
      chain: { name: 'posta.events/0', seq: 1, hash: expect.stringMatching(/^[\da-f]{64}$/) },
    })
  })

  test("answers everyone's events to an operator", async () => {
    expect(idsOf(await ask('/events', 'olga'))).toEqual(['login-bob', 'op-1.succeeded', 'op-1.requested', 'login-ana'])
    expect(idsOf(await ask('/events?user=bob', 'olga'))).toEqual(['login-bob'])
  })

  test("answers nothing of another user's", async () => {
    expect((await ask('/events?user=bob', 'ana')).body).toEqual({ items: [] })
    expect(idsOf(await ask('/events?user=ana', 'ana'))).toHaveLength(3)
    expect(idsOf(await ask('/events?operation=op-1', 'bob'))).toEqual([])
  })

  test('filters by type, operation and time', async () => {
    expect(idsOf(await ask('/events?type=posta.user.logged-in', 'olga'))).toEqual(['login-bob', 'login-ana'])
    expect(idsOf(await ask('/events?operation=op-1', 'ana'))).toEqual(['op-1.succeeded', 'op-1.requested'])
    expect(idsOf(await ask(`/events?from=${at(1000)}&to=${at(2000)}`, 'olga'))).toEqual([
      'op-1.succeeded',
      'op-1.requested',
    ])
  })

  test('continues at the cursor until there are no more', async () => {
    const seen: string[] = []
    let cursor = ''
    do {
      const answer = await ask(`/events?limit=1${cursor}`, 'olga')
      seen.push(...idsOf(answer))
      const { next } = pageOf(answer)
      cursor = next ? `&cursor=${next}` : ''
    } while (cursor)
    expect(seen).toEqual(['login-bob', 'op-1.succeeded', 'op-1.requested', 'login-ana'])
  })

  test.each([
    ['cursor=x', 400],
    ['limit=0', 422],
    ['limit=101', 422],
    ['type=posta.unknown', 422],
    ['from=yesterday', 422],
    ['unknown=1', 422],
    ['user=', 422],
  ])('refuses ?%s', async (query, status) => {
    expect((await ask(`/events?${query}`, 'olga')).status).toBe(status)
  })
})

test('GET /events/{id} answers an own event, any to an operator, and otherwise 404', async () => {
  expect((await ask('/events/op-1.requested', 'ana')).body).toMatchObject({ id: 'op-1.requested', operation: 'op-1' })
  expect((await ask('/events/op-1.requested', 'olga')).status).toBe(200)
  expect((await ask('/events/op-1.requested', 'bob')).body).toMatchObject({ code: 'not-found' })
  expect((await ask('/events/unknown', 'olga')).status).toBe(404)
})

test('GET /operations/{id}/timeline answers for an own operation, for any to an operator, and otherwise 404', async () => {
  expect((await ask('/operations/op-1/timeline', 'ana')).body).toMatchObject({
    operation: 'op-1',
    user: 'ana',
    totalMs: 40,
  })
  expect(pageOf(await ask('/operations/op-1/timeline', 'olga')).items).toHaveLength(2)
  expect((await ask('/operations/op-1/timeline', 'bob')).status).toBe(404)
  expect((await ask('/operations/unknown/timeline', 'olga')).status).toBe(404)
})

test('GET /stats counts each event of the last hour once', async () => {
  const hour = 60 * 60_000
  await createAppend(store.events)(
    [
      failed('op-2', 'bob', 500),
      loggedIn('in the same hour', 'ana', 60_000 - hour),
      loggedIn('an hour ago', 'ana', -hour),
    ].map((message, offset) => toEvent(deliver(message, 9 + offset), NOON_MS)),
  )
  const types = { 'posta.operation.requested': 1, 'posta.operation.succeeded': 1, 'posta.operation.failed': 1 }
  expect((await ask('/stats', 'olga')).body).toEqual({
    from: at(60_000 - hour),
    until: at(60_000),
    types: { ...types, 'posta.user.logged-in': 3 },
    logins: 3,
    failedLogins: 0,
    failedOperations: 1,
    latency: { operations: 2, averageMs: 770, maxMs: 1040 },
    minutes: [
      { minute: at(0), types: { ...types, 'posta.user.logged-in': 2 } },
      { minute: at(60_000 - hour), types: { 'posta.user.logged-in': 1 } },
    ],
  })
})

test('progress is an event of its own: in the list by its type, in the timeline with step and status, and no outcome', async () => {
  const progress = [
    progressed('op-1', 1, 1010, { step: 'settled', status: 'waiting' }),
    progressed('op-1', 2, 1020, { step: 'settled', status: 'done' }),
  ]
  await createAppend(store.events)(progress.map((message, offset) => toEvent(deliver(message, 9 + offset), NOON_MS)))
  expect(idsOf(await ask('/events?type=posta.operation.progressed', 'ana'))).toEqual([
    'op-1.progress.2',
    'op-1.progress.1',
  ])
  for (const type of ['cancel-requested', 'signalled', 'abandoned'])
    expect((await ask(`/events?type=posta.operation.${type}`, 'ana')).body).toEqual({ items: [] })
  expect(pageOf(await ask('/operations/op-1/timeline', 'ana')).items).toMatchObject([
    { id: 'op-1.requested' },
    { id: 'op-1.progress.1', step: 'settled', status: 'waiting', sincePreviousMs: 10 },
    { id: 'op-1.progress.2', step: 'settled', status: 'done', sincePreviousMs: 10 },
    { id: 'op-1.succeeded' },
  ])
  expect((await ask('/stats', 'olga')).body).toMatchObject({
    types: { 'posta.operation.progressed': 2, 'posta.operation.succeeded': 1 },
    failedOperations: 0,
    latency: { operations: 1, averageMs: 1040, maxMs: 1040 },
  })
})

test('an event whose text was made unreadable is listed as altered, among the others', async () => {
  using database = new Database(join(folder.path, 'monitor.db'))
  database.run("UPDATE events SET text = 'x' WHERE id = 'op-1.succeeded'")
  const { items } = pageOf(await ask('/events', 'ana'))
  expect(items).toHaveLength(3)
  expect(items[0]).toMatchObject({ id: 'op-1.succeeded', altered: true, data: null })
})

test("a HEAD of the stream takes no client's place, however often it is sent", async () => {
  const headers = { Authorization: 'Bearer olga' }
  for (let n = 0; n < 150; n++)
    expect((await app.request('/events/stream', { method: 'HEAD', headers })).status).toBe(200)
  const response = await app.request('/events/stream', { headers })
  expect(response.status).toBe(200)
  await response.body?.cancel()
})

test('GET /events/stream sends events as they are stored', async () => {
  const response = await app.request('/events/stream?user=ana', { headers: { Authorization: 'Bearer olga' } })
  expect(response.status).toBe(200)
  expect(response.headers.get('Content-Type')).toStartWith('text/event-stream')
  const reader = response.body?.getReader()
  const decoder = new TextDecoder()
  let text = ''
  const until = async (pattern: RegExp) => {
    while (!pattern.test(text)) {
      const { value, done } = (await reader?.read()) ?? { done: true }
      if (done) throw new Error(`It ended before ${pattern}: ${text}`)
      text += decoder.decode(value)
    }
  }
  await until(/event: ready\n/)
  await createAppend(store.events)([toEvent(deliver(loggedIn('new', 'ana', 3000), 9), NOON_MS)])
  await until(/event: event\n.*"id":"new".*\n/s)
  expect(text).toMatch(/\nid: \d+(?:\.\d+){17}\n/)
  closing.abort()
  await until(/event: end\n/)
  expect((await ask('/events/stream', 'olga', { headers: { 'Last-Event-ID': 'x' } })).body).toMatchObject({
    code: 'malformed-request',
  })
})

const operatorRoutes = [
  ['GET', '/events/stream'],
  ['GET', '/stats'],
] as const
const userRoutes = [
  ['GET', '/events'],
  ['GET', '/events/login-ana'],
  ['GET', '/operations/op-1/timeline'],
] as const

test.each(operatorRoutes)('%s %s is for operators only', async (method, path) => {
  const { status, body } = await ask(path, 'ana', { method })
  expect({ status, body }).toMatchObject({ status: 403, body: { code: 'forbidden' } })
})

test.each([...operatorRoutes, ...userRoutes])('%s %s needs a valid token', async (method, path) => {
  for (const token of [undefined, 'forged']) {
    const { status, headers } = await ask(path, token, { method })
    expect(status).toBe(401)
    expect(headers.get('WWW-Authenticate')).toStartWith('Bearer')
  }
})
