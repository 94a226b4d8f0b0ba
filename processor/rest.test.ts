import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import type { TokenVerifier } from '@posta/common/service/auth.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { testApp } from '@posta/common/testing/app.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import * as v from 'valibot'
import { resultRoutes } from './rest.ts'
import { succeeded } from './results/results.suite.ts'
import type { Result } from './results/results.ts'
import { openEmbedded } from './store/embedded.ts'

const folder = temporaryFolder()
const { results, close } = openEmbedded(join(folder.path, 'processor.db'))

/** A fake: the token is the user's id and role. */
const verify: TokenVerifier = async (token) => {
  const [user = '', role] = token.split('-')
  if (user === 'bad') throw new Problem('invalid-token')
  return { user, role: role === 'operator' ? 'operator' : 'user' }
}

const app = testApp()
app.route('/results', resultRoutes({ results, verify }))

async function get(path: string, token = 'ana', method = 'GET') {
  const response = await app.request(path, { method, headers: token ? { Authorization: `Bearer ${token}` } : {} })
  const body = v.parse(v.record(v.string(), v.unknown()), await response.json())
  return { status: response.status, headers: response.headers, body }
}

const Page = v.object({ items: v.array(v.looseObject({ id: v.string() })), next: v.optional(v.string()) })

const { counts: _, ...newest } = succeeded('ana-5', { completedAt: '2026-11-23T13:00:00.000Z' })
const refused: Result = {
  id: 'bob-1',
  user: 'bob',
  type: sample.type,
  createdAt: '2026-11-23T12:00:00.000Z',
  completedAt: '2026-11-23T12:30:00.000Z',
  status: 'failed',
  error: { code: 'limit-exceeded', message: 'Too much.' },
}

beforeAll(async () => {
  await results.append([
    ...[1, 2, 3, 4].map((index) =>
      succeeded(`ana-${index}`, {
        completedAt: `2026-11-23T12:0${index}:00.000Z`,
        counts: { limit: 'test', period: '2026-11-23', amount: 100 },
      }),
    ),
    refused,
    newest,
  ])
})

afterAll(async () => {
  await close()
  folder.remove()
})

async function idsOf(path: string, token: string): Promise<{ ids: string[]; next: string | undefined }> {
  const { status, body } = await get(path, token)
  expect(status).toBe(200)
  const { items, next } = v.parse(Page, body)
  return { ids: items.map(({ id }) => id), next }
}

describe('GET /results', () => {
  test("lists the caller's own, newest first, page by page", async () => {
    const first = await idsOf('/results?limit=2', 'ana')
    expect(first.ids).toEqual(['ana-5', 'ana-4'])
    const second = await idsOf(`/results?limit=2&cursor=${first.next}`, 'ana')
    expect(second.ids).toEqual(['ana-3', 'ana-2'])
    const third = await idsOf(`/results?limit=2&cursor=${second.next}`, 'ana')
    expect(third).toEqual({ ids: ['ana-1'], next: undefined })
    expect((await idsOf('/results', 'nobody')).ids).toEqual([])
  })

  test("lists everyone's to an operator", async () => {
    expect((await idsOf('/results?limit=3', 'olga-operator')).ids).toEqual(['ana-5', 'bob-1', 'ana-4'])
  })

  test('shows the outcome of each, and what it counts', async () => {
    const { body } = await get('/results?limit=2', 'olga-operator')
    expect(v.parse(Page, body).items[1]).toEqual({
      id: 'bob-1',
      user: 'bob',
      type: sample.type,
      status: 'failed',
      error: { code: 'limit-exceeded', message: 'Too much.' },
      createdAt: '2026-11-23T12:00:00.000Z',
      completedAt: '2026-11-23T12:30:00.000Z',
    })
  })

  test.each(['limit=0', 'limit=101', 'limit=1.5', 'limit=x', 'sort=up'])('refuses ?%s', async (query) => {
    expect((await get(`/results?${query}`)).status).toBe(422)
  })

  test.each([
    ['that is not JSON', 'x'],
    ['without a position', btoa('{}')],
    ['with a position of another list', btoa('{"completedAt":1,"id":"a"}')],
    ['of 2000 characters', 'A'.repeat(2000)],
  ])('refuses a cursor %s', async (_, cursor) => {
    const { status, body } = await get(`/results?cursor=${cursor}`)
    expect({ status, code: body.code }).toEqual({ status: 400, code: 'malformed-request' })
  })
})

describe('GET /results/{id}', () => {
  test("shows the caller's own with the facts that it was decided on", async () => {
    const { status, headers, body } = await get('/results/ana-1')
    expect(status).toBe(200)
    expect(headers.get('cache-control')).toBe('no-store')
    expect(body).toEqual({
      id: 'ana-1',
      user: 'ana',
      type: sample.type,
      status: 'succeeded',
      input: sample.input(),
      output: sample.output(),
      counts: { limit: 'test', period: '2026-11-23', amount: '100' },
      createdAt: '2026-11-23T12:00:00.000Z',
      completedAt: '2026-11-23T12:01:00.000Z',
      facts: { learned: 'something', at: '2026-11-23' },
    })
  })

  test("is 404 for another user's, as if it did not exist; an operator sees it", async () => {
    const [anothers, none] = [await get('/results/bob-1'), await get('/results/none')]
    expect(anothers.status).toBe(404)
    expect(anothers.body).toEqual(none.body)
    expect((await get('/results/bob-1', 'olga-operator')).status).toBe(200)
  })
})

test.each(['/results', '/results/ana-1'])('%s needs a valid token', async (path) => {
  for (const token of ['', 'bad']) {
    const { status, headers } = await get(path, token)
    expect(status).toBe(401)
    expect(headers.get('www-authenticate')).toStartWith('Bearer')
  }
})

test('another method is 405, and `Allow` names the right ones', async () => {
  const { status, headers } = await get('/results', 'ana', 'POST')
  expect(status).toBe(405)
  expect(headers.get('allow')).toContain('GET')
})
