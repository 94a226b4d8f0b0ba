import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { type Deps, systemDeps } from '@posta/common/service/deps.ts'
import { testApp, testVerifier } from '@posta/common/testing/app.ts'
import { type Fresh, freshFile } from '@posta/common/testing/fresh-store.ts'
import type { Hono } from 'hono'
import * as v from 'valibot'
import { createAppend } from '../events/append.ts'
import { toEvent } from '../events/record.ts'
import { openEmbedded } from '../store/embedded.ts'
import type { Store } from '../store/store.ts'
import { createSigner, DAY_MS } from '../testing/checkpoints.ts'
import { deliver, loggedIn, NOON_MS, requested } from '../testing/messages.ts'
import { auditRoutes } from './rest.ts'
import { createSignedCheckpoints, type SignedCheckpoints } from './signed-checkpoints.ts'
import { createAudit } from './verify.ts'

const verify = testVerifier(['ana'], ['olga'])
const deps: Deps = { ...systemDeps, now: () => NOON_MS }
const signer = createSigner()

let here: Fresh<Store>
let path: string
let store: Store
let signedCheckpoints: SignedCheckpoints
let app: Hono

beforeEach(async () => {
  here = freshFile((file) => {
    path = file
    return openEmbedded(file)
  })
  store = here.open()
  signedCheckpoints = createSignedCheckpoints({ store, findKey: signer.findKey, deps })
  app = testApp(deps)
  const { events } = store
  const routes = auditRoutes({
    audit: createAudit({ events, trustedHeads: signedCheckpoints.trustedHeads, deps }),
    checkpoints: store.checkpoints,
    signedCheckpoints,
    verify,
  })
  app.route('/audit', routes)
  await createAppend(store.events)([toEvent(deliver(loggedIn('a')), NOON_MS), toEvent(deliver(loggedIn('b')), NOON_MS)])
})

afterEach(async () => {
  await here.dispose()
})

async function ask(path: string, token?: string, body?: object) {
  const response = await app.request(`/audit${path}`, {
    method: body ? 'POST' : 'GET',
    headers: { ...(token !== undefined && { Authorization: `Bearer ${token}` }), 'Content-Type': 'application/json' },
    ...(body && { body: JSON.stringify(body) }),
  })
  const answer: unknown = await response.json()
  return { status: response.status, body: answer }
}

const heads = () => signedCheckpoints.heads()

test('GET /audit/verify says that chains are whole, and where one was changed', async () => {
  const other = toEvent(deliver(requested('op-1')), NOON_MS)
  await createAppend(store.events)([other])
  expect((await ask('/verify', 'olga')).body).toMatchObject({
    ok: true,
    events: 3,
    chains: [
      { chain: 'posta.events/0', events: 2, head: { seq: 2 } },
      { chain: 'posta.requests/0', events: 1 },
    ],
  })
  using database = new Database(path)
  database.run("UPDATE events SET text = replace(text, 'ana', 'eve') WHERE id = 'b'")
  expect((await ask('/verify', 'olga')).body).toMatchObject({
    ok: false,
    chains: [{ chain: 'posta.events/0', firstBad: { seq: 2, id: 'b' } }, {}],
  })
  expect((await ask('/verify?cursor=x', 'olga')).status).toBe(400)
})

test('gateway reads the head of each chain, which it signs', async () => {
  expect(await ask('/heads', 'olga')).toEqual({
    status: 200,
    body: { heads: [{ chain: 'posta.events/0', seq: 2, hash: expect.stringMatching(/^[\da-f]{64}$/) }] },
  })
})

test('a signed checkpoint is kept, and served as it came', async () => {
  expect(await ask('/checkpoints/latest', 'olga')).toMatchObject({ status: 404, body: { code: 'not-found' } })
  const checkpoint = signer.sign(await heads(), NOON_MS)
  expect(await ask('/checkpoints', 'olga', { checkpoint })).toEqual({
    status: 200,
    body: { missing: [], storeIsNew: false },
  })
  const shown = { time: '2026-11-23T12:00:00.000Z', checkpoint }
  expect(await ask('/checkpoints/latest', 'olga')).toEqual({ status: 200, body: shown })
  expect(await ask('/checkpoints', 'olga')).toEqual({ status: 200, body: { items: [shown] } })
})

test('the answer to a checkpoint names the heads that the chains do not have', async () => {
  const [head] = await heads()
  if (!head) throw new Error('there is a chain')
  const [cut, other] = [
    { ...head, seq: 3 },
    { ...head, hash: 'f'.repeat(64) },
  ]
  for (const missing of [cut, other])
    expect(await ask('/checkpoints', 'olga', { checkpoint: signer.sign([missing], NOON_MS) })).toEqual({
      status: 200,
      body: { missing: [missing], storeIsNew: false },
    })
})

test('a checkpoint that was kept elsewhere can be sent again, also once its key is gone', async () => {
  const own = createSigner()
  const checkpointsOfOwn = createSignedCheckpoints({ store, findKey: (kid) => own.findKey(kid), deps })
  const old = own.sign(await heads(), NOON_MS - 40 * DAY_MS)
  own.rotate()
  await expect(checkpointsOfOwn.keep(old)).rejects.toMatchObject({ code: 'invalid-input' })
  await checkpointsOfOwn.keep(own.sign(await heads(), NOON_MS))
  expect(await checkpointsOfOwn.keep(old)).toEqual({ missing: [], storeIsNew: false })
  expect(await store.checkpoints.list({ limit: 9 })).toHaveLength(2)
})

test('checkpoints are listed newest first, page by page', async () => {
  for (const days of [2, 1, 0])
    await ask('/checkpoints', 'olga', { checkpoint: signer.sign(await heads(), NOON_MS - days * DAY_MS) })
  const Page = v.object({ items: v.array(v.object({ time: v.string() })), next: v.optional(v.string()) })
  const first = v.parse(Page, (await ask('/checkpoints?limit=2', 'olga')).body)
  const second = v.parse(Page, (await ask(`/checkpoints?limit=2&cursor=${first.next}`, 'olga')).body)
  expect([...first.items, ...second.items].map(({ time }) => time.slice(0, 10))).toEqual([
    '2026-11-23',
    '2026-11-22',
    '2026-11-21',
  ])
  expect(second.next).toBeUndefined()
  expect((await ask('/checkpoints?cursor=x', 'olga')).status).toBe(400)
})

test('what gateway has not signed is refused and not kept', async () => {
  const forged = createSigner().sign(await heads(), NOON_MS)
  for (const checkpoint of [forged, 'x', '']) {
    expect(await ask('/checkpoints', 'olga', { checkpoint })).toMatchObject({
      status: 422,
      body: { errors: [{ pointer: '#/checkpoint', detail: 'is not signed by a key of gateway' }] },
    })
  }
  expect((await ask('/checkpoints', 'olga', { checkpoint: forged, more: 1 })).status).toBe(422)
  expect(await store.checkpoints.list({ limit: 1 })).toEqual([])
})

test.each([
  ['/verify', undefined],
  ['/heads', undefined],
  ['/checkpoints', undefined],
  ['/checkpoints/latest', undefined],
  ['/checkpoints', { checkpoint: 'x' }],
])('%s is for operators only', async (path, body) => {
  expect((await ask(path, 'ana', body)).status).toBe(403)
  expect((await ask(path, undefined, body)).status).toBe(401)
})
