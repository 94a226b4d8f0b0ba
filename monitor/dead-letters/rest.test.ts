import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { type Deps, systemDeps } from '@posta/common/service/deps.ts'
import { testApp, testVerifier } from '@posta/common/testing/app.ts'
import { type Fresh, freshFile } from '@posta/common/testing/fresh-store.ts'
import type { Hono } from 'hono'
import * as v from 'valibot'
import { openEmbedded } from '../store/embedded.ts'
import type { Store } from '../store/store.ts'
import { fakeBroker, letters, setAside, unreadable } from '../testing/dead-letters.ts'
import { at, deliver, NOON_MS, requested } from '../testing/messages.ts'
import { createDecideMany } from './decide-many.ts'
import { createDecisions } from './decisions.ts'
import { deadLetterRoutes } from './rest.ts'

const verify = testVerifier(['ana'], ['olga', 'oscar'])
const deps: Deps = { ...systemDeps, now: () => NOON_MS + 1000 }
const garbled = { value: Buffer.from('{'), key: Buffer.from([0xff]) }
const stored = setAside({ ...deliver(requested('op-2'), 7, 3), ...garbled }, 'Not JSON.')
const letter = stored.id

let here: Fresh<Store>
let store: Store
let broker: ReturnType<typeof fakeBroker>
let app: Hono

beforeEach(async () => {
  here = freshFile(openEmbedded)
  store = here.open()
  broker = fakeBroker()
  const { deadLetters } = store
  const decisions = createDecisions({ deadLetters, broker, deps })
  app = testApp(deps)
  app.route(
    '/dead-letters',
    deadLetterRoutes({
      deadLetters,
      decisions,
      decideMany: createDecideMany({ deadLetters, decisions, deps }),
      verify,
    }),
  )
  await deadLetters.add([stored, unreadable])
})
afterEach(async () => {
  await here.dispose()
})

const Page = v.object({ items: v.array(v.looseObject({ id: v.string() })), next: v.optional(v.string()) })

async function ask(method: 'GET' | 'POST', path = '', token?: string, body?: unknown) {
  const response = await app.request(`/dead-letters${path}`, {
    method,
    headers: {
      ...(token !== undefined && { Authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'Content-Type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  })
  const answer: unknown = await response.json()
  return { status: response.status, headers: response.headers, body: answer }
}

const pageOf = ({ body }: { readonly body: unknown }) => v.parse(Page, body)
const idsOf = (answer: { readonly body: unknown }) => pageOf(answer).items.map(({ id }) => id)

const shown = {
  id: letter,
  status: 'open',
  reason: 'Not JSON.',
  group: 'posta.processor',
  topic: 'posta.requests',
  partition: 3,
  offset: 7,
  time: at(0),
  receivedAt: at(0),
  redrivable: true,
  type: 'posta.operation.requested',
  user: '\ufffd',
  operation: 'op-2',
  preview: '{',
}

describe('GET /dead-letters', () => {
  test('lists them, newest first', async () => {
    expect(pageOf(await ask('GET', '', 'olga')).items).toEqual([
      {
        id: unreadable.id,
        status: 'open',
        reason: 'It cannot be read as a dead letter: another program wrote it.',
        topic: 'posta.dead-letters',
        partition: 0,
        offset: 9,
        time: at(0),
        receivedAt: at(1),
        redrivable: false,
        type: 'posta.user.logged-in',
        user: 'ana',
        preview: expect.stringContaining('"ana"'),
      },
      shown,
    ])
  })

  test('filters and goes on at the cursor', async () => {
    for (const [query, expected] of [
      ['topic=posta.requests', [letter]],
      ['group=posta.gateway', []],
      ['group=posta.processor', [letter]],
      ['type=posta.operation.requested', [letter]],
      ['user=ana', [unreadable.id]],
      ['operation=op-2&status=open', [letter]],
      [`from=${at(1)}`, [unreadable.id]],
      [`to=${at(1)}`, [letter]],
      ['status=open&limit=1', [unreadable.id]],
    ] as const)
      expect(idsOf(await ask('GET', `?${query}`, 'olga'))).toEqual([...expected])
    const { next } = pageOf(await ask('GET', '?limit=1', 'olga'))
    expect(idsOf(await ask('GET', `?limit=1&cursor=${next}`, 'olga'))).toEqual([letter])
  })

  test.each([
    ['cursor=x', 400],
    ['limit=0', 422],
    ['status=lost', 422],
    ['topic=posta.unknown', 422],
    ['group=posta.unknown', 422],
    ['from=yesterday', 422],
    ['reason=JSON', 422],
  ])('refuses ?%s', async (query, status) => {
    expect((await ask('GET', `?${query}`, 'olga')).status).toBe(status)
  })
})

test('GET /dead-letters/{id} has the message as it was, as bytes and, where it is that, as text', async () => {
  const answer = await ask('GET', `/${letter}`, 'olga')
  expect(answer.headers.get('Cache-Control')).toBe('no-store')
  const whole = v.parse(v.looseObject({ original: v.looseObject({ headers: v.array(v.unknown()) }) }), answer.body)
  expect(whole).toMatchObject({
    ...shown,
    original: { key: { base64: '/w==' }, value: { base64: 'ew==', text: '{' } },
  })
  expect(whole.original.key).not.toHaveProperty('text')
  expect(whole.original.headers).toContainEqual({
    name: 'ce_type',
    base64: Buffer.from('posta.operation.requested').toString('base64'),
    text: 'posta.operation.requested',
  })
  expect(await ask('GET', '/unknown', 'olga')).toMatchObject({ status: 404, body: { code: 'not-found' } })
})

test('POST /dead-letters/{id}/redrive sends the message again, the same each time, and says who asked first', async () => {
  const first = await ask('POST', `/${letter}/redrive`, 'olga')
  expect(first).toMatchObject({
    status: 200,
    body: { ...shown, status: 'redriven', redrive: { event: `${letter}.redriven`, by: 'olga', at: at(1000) } },
  })
  expect((await ask('POST', `/${letter}/redrive`, 'oscar')).body).toEqual(first.body)
  expect((await ask('GET', `/${letter}`, 'olga')).body).toMatchObject(v.parse(v.looseObject({}), first.body))
  const [sent, sentAgain] = broker.published
  expect(sent?.map(({ topic }) => topic)).toEqual(['posta.events', 'posta.requests'])
  expect(sentAgain).toEqual(sent ?? [])
  expect(idsOf(await ask('GET', '?status=redriven', 'olga'))).toEqual([letter])
  expect(await ask('POST', `/${unreadable.id}/redrive`, 'olga')).toMatchObject({
    status: 409,
    body: { code: 'conflict' },
  })
  expect((await ask('POST', '/unknown/redrive', 'olga')).status).toBe(404)
  expect(await ask('POST', `/${letter}/discard`, 'oscar', { reason: 'Too late.' })).toMatchObject({
    status: 409,
    body: { code: 'conflict', detail: `It was redriven by olga at ${at(1000)}.` },
  })
})

test('POST /dead-letters/{id}/discard ends it without sending the message, and says who asked and why', async () => {
  const first = await ask('POST', `/${letter}/discard`, 'olga', { reason: ' A test of ours. ' })
  expect(first).toMatchObject({
    status: 200,
    body: {
      ...shown,
      status: 'discarded',
      discard: { event: `${letter}.discarded`, by: 'olga', at: at(1000), reason: 'A test of ours.' },
    },
  })
  expect((await ask('POST', `/${letter}/discard`, 'oscar', { reason: 'Another.' })).body).toEqual(first.body)
  expect(await ask('POST', `/${letter}/redrive`, 'oscar')).toMatchObject({ status: 409, body: { code: 'conflict' } })
  expect((await ask('POST', `/${unreadable.id}/discard`, 'olga', { reason: 'Garbage.' })).status).toBe(200)
  expect((await ask('POST', '/unknown/discard', 'olga', { reason: 'Garbage.' })).status).toBe(404)
  expect(broker.published.flat().map(({ topic }) => topic)).toEqual(['posta.events', 'posta.events'])
})

test('while the broker is down a decision is 503, recorded and shown', async () => {
  broker.fail(new Error('The broker is down.'))
  const refused = await ask('POST', `/${letter}/redrive`, 'olga')
  expect(refused).toMatchObject({ status: 503, body: { code: 'overloaded' } })
  expect(refused.headers.get('Retry-After')).toBe('5')
  expect((await ask('GET', `/${letter}`, 'olga')).body).toMatchObject({ status: 'open', redrive: { by: 'olga' } })
})

describe('many, by a filter,', () => {
  test('are counted by a dry run, which is the default', async () => {
    const dry = { dryRun: true, count: 1, orMore: false, ids: [letter] }
    expect(await ask('POST', '/redrive', 'olga', { filter: {} })).toMatchObject({ status: 200, body: dry })
    expect((await ask('POST', '/redrive', 'olga', { filter: { user: 'bob' }, dryRun: true })).body).toEqual({
      dryRun: true,
      count: 0,
      orMore: false,
      ids: [],
    })
    expect((await ask('POST', '/discard', 'olga', { filter: { status: 'open' }, reason: 'Garbage.' })).body).toEqual({
      ...dry,
      count: 2,
      ids: [letter, unreadable.id],
    })
    expect(broker.published).toEqual([])
  })

  test('are redriven, and the answer says how many, and where to go on', async () => {
    await store.deadLetters.add(letters(104))
    const filter = { topic: 'posta.requests', from: at(0), to: at(500) }
    const first = await ask('POST', '/redrive', 'olga', { filter, dryRun: false })
    expect(first).toMatchObject({
      status: 200,
      body: { dryRun: false, redriven: 100, already: 0, refused: 0, refusals: [] },
    })
    const { next: cursor } = v.parse(v.looseObject({ next: v.string() }), first.body)
    expect((await ask('POST', '/redrive', 'olga', { filter, dryRun: false, cursor })).body).toEqual({
      dryRun: false,
      redriven: 5,
      already: 0,
      refused: 0,
      refusals: [],
    })
    expect(new Set(broker.ids('ce_redrive')).size).toBe(105)
  })

  test('are discarded with one reason', async () => {
    const body = { filter: {}, dryRun: false, reason: 'Garbage.' }
    expect((await ask('POST', '/discard', 'olga', body)).body).toEqual({
      dryRun: false,
      discarded: 2,
      already: 0,
      refused: 0,
      refusals: [],
    })
    for (const item of pageOf(await ask('GET', '?status=discarded', 'olga')).items)
      expect(item).toMatchObject({ discard: { by: 'olga', reason: 'Garbage.' } })
  })
})

test.each([
  ['/redrive', {}, '#/filter'],
  ['/redrive', { filter: { colour: 'red' } }, '#/filter/colour'],
  ['/redrive', { filter: {}, all: true }, '#/all'],
  ['/redrive', { filter: { status: 'redriven' } }, '#/filter/status'],
  ['/redrive', { filter: { from: 'yesterday' } }, '#/filter/from'],
  ['/redrive', { filter: {}, dryRun: 'no' }, '#/dryRun'],
  ['/redrive', { filter: {}, reason: 'Why not.' }, '#/reason'],
  ['/discard', { filter: {} }, '#/reason'],
  ['/discard', { filter: {}, reason: '  ' }, '#/reason'],
  [`/${letter}/discard`, {}, '#/reason'],
  [`/${letter}/discard`, { reason: 'x'.repeat(1001) }, '#/reason'],
  [`/${letter}/discard`, { reason: 'Why not.', more: 1 }, '#/more'],
])('POST /dead-letters%s refuses %j', async (path, body, pointer) => {
  expect(await ask('POST', path, 'olga', body)).toMatchObject({
    status: 422,
    body: { code: 'invalid-input', errors: [{ pointer }] },
  })
  expect(broker.published).toEqual([])
})

test('a cursor that no answer gave is 400, a body that is not JSON 415', async () => {
  const body = { filter: {}, dryRun: false, cursor: 'x' }
  expect((await ask('POST', '/redrive', 'olga', body)).status).toBe(400)
  expect((await ask('POST', '/redrive', 'olga')).status).toBe(415)
})

const routes = [
  ['GET', ''],
  ['GET', `/${letter}`],
  ['POST', '/redrive'],
  ['POST', '/discard'],
  ['POST', `/${letter}/redrive`],
  ['POST', `/${letter}/discard`],
] as const

test.each(routes)('%s /dead-letters%s is for operators alone, and needs a valid token', async (method, path) => {
  const body = method === 'POST' ? { filter: {}, dryRun: false, reason: 'Why not.' } : undefined
  expect(await ask(method, path, 'ana', body)).toMatchObject({ status: 403, body: { code: 'forbidden' } })
  for (const token of [undefined, 'forged']) {
    const { status, headers } = await ask(method, path, token, body)
    expect(status).toBe(401)
    expect(headers.get('WWW-Authenticate')).toStartWith('Bearer')
  }
  expect(await store.deadLetters.unconfirmed({ limit: 9 })).toEqual([])
  expect(broker.published).toEqual([])
})
