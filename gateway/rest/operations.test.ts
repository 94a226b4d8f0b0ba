import { afterEach, beforeEach, expect, test } from 'bun:test'
import { catalog } from '@posta/common/operations/catalog.ts'
import { addDocs } from '@posta/common/service/docs.ts'
import { createMetrics } from '@posta/common/service/metrics.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { operations } from '../database/schema.ts'
import { openApis } from '../testing/apis.ts'
import { progressOf, submission } from '../testing/operations.ts'

let apis: Awaited<ReturnType<typeof openApis>>
beforeEach(async () => {
  apis = await openApis()
})
afterEach(() => apis.close())

/** The status, and the code where it is a problem. */
async function post(path: string, token: string, body?: unknown): Promise<string> {
  const answer = await apis.ask(path, token, body)
  return [answer.status, answer.body.code ?? answer.body.status].join(' ')
}

test('a cancel is answered with 202 and the operation, again too, and with 409 once it has ended', async () => {
  const id = await apis.submit()
  expect(await apis.ask(`/operations/${id}/cancel`, 'ana')).toMatchObject({
    status: 202,
    body: { id, status: 'pending' },
  })
  expect(await post(`/operations/${id}/cancel`, 'ana')).toBe('202 pending')
  expect(await post(`/operations/${id}/cancel`, 'olga')).toBe('202 pending')
  expect(await post(`/operations/${id}/cancel`, 'bob')).toBe('404 not-found')
  expect(await post(`/operations/${id}/cancel`, 'nobody')).toBe('401 invalid-token')
  await apis.writer.write([apis.database.update(operations).set({ status: 'failed' })])
  expect(await post(`/operations/${id}/cancel`, 'ana')).toBe('409 already-terminal')
})

test('an answer is taken once, of the right giver and shape', async () => {
  const id = await apis.submit()
  const path = `/operations/${id}/signals/approve`
  expect(await post(`/operations/${id}/signals/none`, 'olga', {})).toBe('404 unknown-signal')
  expect(await post(path, 'bob', { approved: true })).toBe('404 not-found')
  expect(await post(path, 'ana', { approved: true })).toBe('403 forbidden')
  expect(await apis.ask(path, 'olga', { approved: 1 })).toMatchObject({
    status: 422,
    body: { code: 'invalid-input', errors: [{ pointer: '#/approved', detail: 'must be a boolean' }] },
  })
  for (const body of [{}, { approved: true, more: 1 }, 'null', '"yes"', '[1]'])
    expect(await post(path, 'olga', body)).toBe('422 invalid-input')
  expect(await post(path, 'olga', '{')).toBe('400 malformed-request')
  expect(await post(path, 'olga', { approved: true, more: 'x'.repeat(65_536) })).toBe('413 payload-too-large')
  expect(await post(path, 'olga', { approved: true })).toBe('202 pending')
  expect(await post(path, 'olga', { approved: false })).toBe('409 already-given')
})

test('a payload that is nested as deep as a body allows is refused like any other', async () => {
  const id = await apis.submit()
  const deep = `{"approved":${'['.repeat(30_000)}${']'.repeat(30_000)}}`
  expect(await post(`/operations/${id}/signals/approve`, 'olga', deep)).toBe('422 invalid-input')
})

test('an operation shows its progress, alone and in the list', async () => {
  const id = await apis.submit()
  const get = async (path: string) =>
    (await apis.app.request(path, { headers: { Authorization: 'Bearer ana' } })).json()
  expect(await get(`/operations/${id}`)).not.toHaveProperty('progress')
  await apis.keep(progressOf(id, 0, { status: 'waiting', forSignal: true }))
  const progress = [{ step: 'step-0', status: 'waiting', at: '2026-11-23T12:00:00.000Z' }]
  expect(await get(`/operations/${id}`)).toMatchObject({ progress })
  expect(await get('/operations')).toMatchObject({ items: [{ progress }] })
})

test('OpenAPI has cancels and signals with every problem, and the progress of an operation', async () => {
  addDocs(apis.app, { title: 'test', description: '', url: '', links: [], metrics: createMetrics('test') })
  const { paths } = await (await apis.app.request('/openapi.json')).json()
  const cancel = paths['/operations/{id}/cancel'].post
  const signal = paths['/operations/{id}/signals/{name}'].post
  expect(Object.keys(cancel.responses)).toEqual(['202', '401', '404', '409', '503'])
  expect(Object.keys(signal.responses)).toEqual(['202', '400', '401', '403', '404', '409', '413', '415', '422', '503'])
  const described = JSON.stringify(signal.responses)
  for (const code of ['unknown-signal', 'already-given', 'already-terminal', 'forbidden', 'not-found', 'overloaded'])
    expect(described).toContain(`\`${code}\``)
  expect(JSON.stringify(cancel.responses['202'])).toContain('"progress"')
  const submissions = JSON.stringify(paths['/operations'].post.requestBody)
  expect(submissions).toContain(catalog[sample.type].description)
  expect(submissions).toContain('It is offered only where PAYOUT_URL is set.') // example
  expect(signal.description).toContain('`approve` of `payout`, from an operator who is not its owner: ') // example
})

test('a submission whose outcome cannot be awaited, since its user awaits too many, is accepted all the same', async () => {
  const id = await apis.submit()
  const leaving = new AbortController()
  const waiting = Array.from({ length: 200 }, () => apis.waiters.awaitOutcome('ana', id, leaving.signal))
  const answer = await apis.app.request('/operations', {
    method: 'POST',
    headers: { Authorization: 'Bearer ana', 'Content-Type': 'application/json', Prefer: 'wait=5' },
    body: JSON.stringify(submission),
  })
  expect(answer.status).toBe(202)
  expect(answer.headers.get('Preference-Applied')).toBeNull()
  expect(answer.headers.get('Location')).toStartWith('/operations/')
  leaving.abort()
  await Promise.all(waiting)
})
