import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { decode } from '@posta/common/messages/envelope.ts'
import type { TokenVerifier } from '@posta/common/service/auth.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { testApp } from '@posta/common/testing/app.ts'
import { createFakeBroker } from '@posta/common/testing/fake-broker.ts'
import { sample, stepped } from '@posta/common/testing/sample.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import * as v from 'valibot'
import { openEmbedded } from '../store/embedded.ts'
import { delivered } from '../testing/requests.ts'
import { newRun } from '../testing/run-to-end.ts'
import { runRoutes } from './rest.ts'
import type { Head } from './runs.ts'

const folder = temporaryFolder()
const { runs, close } = openEmbedded(join(folder.path, 'processor.db'))
const { broker, published, failNextPublishes } = createFakeBroker()

/** A fake: the token is the user's id and role. */
const verify: TokenVerifier = async (token) => {
  const [user = '', role] = token.split('-')
  return { user, role: role === 'operator' ? 'operator' : 'user' }
}

const app = testApp()
app.route('/runs', runRoutes({ runs, broker, verify, deps: systemDeps }))

const Shown = v.looseObject({ id: v.string() })
const Body = v.looseObject({ items: v.optional(v.array(v.looseObject({}))), next: v.optional(v.string()) })

async function ask(path: string, token = 'ana', method = 'GET') {
  const response = await app.request(path, { method, headers: { Authorization: `Bearer ${token}` } })
  const text = await response.text()
  return { status: response.status, body: v.parse(Body, text === '' ? {} : JSON.parse(text)) }
}

const idsOf = async (path: string, token?: string) => {
  const { body } = await ask(path, token)
  return v.parse(v.array(Shown), body.items).map(({ id }) => id)
}

const head = (more: Partial<Head>): Head => ({
  state: 'ready',
  epoch: 1,
  dueAtMs: Date.UTC(2026, 11, 1),
  attempts: 0,
  failures: 0,
  published: 0,
  ...more,
})

beforeAll(async () => {
  await runs.create([
    newRun({ id: 'op-1', head: head({ state: 'waiting', step: 'approve', forSignal: true }) }),
    newRun({
      id: 'op-2',
      user: 'bob',
      head: head({ state: 'waiting', step: 'pay', attempts: 3, failures: 3, reason: 'Away.' }),
    }),
    newRun({ id: 'op-3', head: head({ state: 'stuck', dueAtMs: Number.MAX_SAFE_INTEGER, reason: 'pay failed.' }) }),
    newRun({ id: 'op-4', createdAt: '2026-11-24T12:00:00.000Z', head: head({ state: 'ended' }) }),
  ])
  await runs.append([{ run: 'op-3', record: { n: 0, atMs: 0, kind: 'started', step: 'pay', final: true } }])
  await runs.append([{ run: 'op-3', record: { n: 1, atMs: 1, kind: 'stuck', reason: 'pay failed.' } }])
})

afterAll(async () => {
  await close()
  folder.remove()
})

describe('GET /runs', () => {
  test('shows a user their own runs, newest first, and an operator all, by state, type, user and age', async () => {
    expect(await idsOf('/runs')).toEqual(['op-4', 'op-3', 'op-1'])
    expect(await idsOf('/runs', 'olga-operator')).toEqual(['op-4', 'op-3', 'op-2', 'op-1'])
    expect(await idsOf('/runs?state=waiting', 'olga-operator')).toEqual(['op-2', 'op-1'])
    expect(await idsOf('/runs?user=bob', 'olga-operator')).toEqual(['op-2'])
    expect(await idsOf(`/runs?type=${stepped.type}`, 'olga-operator')).toEqual([])
    expect(await idsOf('/runs?acceptedBefore=2026-11-24T13:00:00%2B01:00')).toEqual(['op-3', 'op-1'])
  })

  test('says what each waits for, until when, and what the last attempt said', async () => {
    const { body } = await ask('/runs?state=waiting', 'olga-operator')
    expect(body.items).toMatchObject([
      { id: 'op-2', step: 'pay', waitsFor: 'time', attempts: 3, failures: 3, reason: 'Away.' },
      { id: 'op-1', step: 'approve', waitsFor: 'answer', dueAt: '2026-12-01T00:00:00.000Z' },
    ])
    const stuck = await ask('/runs?state=stuck')
    expect(stuck.body.items?.[0]).toMatchObject({ reason: 'pay failed.' })
    expect(stuck.body.items?.[0]).not.toHaveProperty('dueAt')
  })

  test('goes on page by page', async () => {
    const first = await ask('/runs?limit=2', 'olga-operator')
    expect(await idsOf(`/runs?limit=2&cursor=${first.body.next}`, 'olga-operator')).toEqual(['op-2', 'op-1'])
  })

  test.each([
    ['/runs?user=bob', 403],
    ['/runs?state=lost', 422],
    ['/runs?acceptedBefore=yesterday', 422],
    ['/runs?cursor=abc', 400],
    ['/runs/op-2', 404],
    ['/runs/none', 404],
    ['/runs/paused', 403],
  ])('GET %s by another user is %d', async (path, status) => {
    expect((await ask(path)).status).toBe(status)
  })
})

test('GET /runs/{id} shows what is recorded', async () => {
  const { body } = await ask('/runs/op-3')
  expect(body.history).toEqual([
    { n: 0, kind: 'started', at: '1970-01-01T00:00:00.000Z', step: 'pay' },
    { n: 1, kind: 'stuck', at: '1970-01-01T00:00:00.001Z', reason: 'pay failed.' },
  ])
})

test('an operator holds back the new runs of a type, once, and lets them go again; each is an event that names who', async () => {
  expect((await ask(`/runs/paused/${sample.type}`, 'ana', 'PUT')).status).toBe(403)
  expect((await ask('/runs/paused/dance', 'olga-operator', 'PUT')).status).toBe(404)
  failNextPublishes(1)
  expect((await ask(`/runs/paused/${sample.type}`, 'olga-operator', 'PUT')).status).toBe(503)
  expect((await ask('/runs/paused', 'olga-operator')).body.items).toEqual([])
  for (let times = 0; times < 2; times++)
    expect((await ask(`/runs/paused/${sample.type}`, 'olga-operator', 'PUT')).status).toBe(204)
  expect((await ask('/runs/paused', 'olga-operator')).body.items).toEqual([{ type: sample.type }])
  expect((await ask(`/runs/paused/${sample.type}`, 'olga-operator', 'DELETE')).status).toBe(204)
  expect(await runs.paused()).toEqual([])
  expect(published.map((message) => decode(delivered(message)))).toMatchObject([
    { envelope: { type: 'posta.runs.paused', data: { operationType: sample.type, by: 'olga' } } },
    { envelope: { type: 'posta.runs.resumed', data: { operationType: sample.type, by: 'olga' } } },
  ])
})
