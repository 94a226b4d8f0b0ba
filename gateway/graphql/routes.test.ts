import { afterAll, expect, test } from 'bun:test'
import { eventually } from '@posta/common/testing/eventually.ts'
import { serverAudits } from 'graphql-http'
import { openApis } from '../testing/apis.ts'

const apis = await openApis({ production: false })
afterAll(apis.close)
const { app } = apis

// In production four of them fail, since they ask for the schema.
test('every audit of GraphQL over HTTP passes', async () => {
  const audits = serverAudits({
    url: 'http://gateway.test/graphql',
    fetchFn: (url: string, init: RequestInit) => app.request(url, init),
  })
  expect(audits.length).toBeGreaterThanOrEqual(61)
  const failed: string[] = []
  for (const { name, fn } of audits) {
    const result = await fn()
    if (result.status !== 'ok') failed.push(`${name}: ${result.reason}`)
  }
  expect(failed).toEqual([])
})

const logIn = 'mutation { login(input: { email: "a@example.com", password: "x" }) { accessToken } }'

test('a form of another site, which a browser sends without asking, logs nobody in', async () => {
  const parts = new FormData()
  parts.append('operations', JSON.stringify({ query: logIn }))
  parts.append('map', '{}')
  const json = JSON.stringify({ query: logIn })
  const simple: [type: string | undefined, body: BodyInit][] = [
    [undefined, parts],
    ['application/x-www-form-urlencoded', new URLSearchParams({ query: logIn })],
    ['application/x-www-form-urlencoded', json],
    ['text/plain', json],
    ['text/plain; application/json', json],
    ['application/graphql', logIn],
    ['', json],
  ]
  for (const [type, body] of simple) {
    const headers = { origin: 'https://evil.example.com', ...(type !== undefined && { 'content-type': type }) }
    const answer = await app.request('/graphql', { method: 'POST', headers, body })
    expect(answer.status).toBe(415)
    expect(await answer.json()).toMatchObject({ code: 'unsupported-media-type' })
  }
  const query = new URLSearchParams({ query: logIn })
  expect((await app.request(`/graphql?${query}`)).status).toBe(405)
})

function follow(id: string, token: string, signal?: AbortSignal) {
  return app.request('/graphql', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', Accept: 'text/event-stream', Authorization: `Bearer ${token}` },
    body: JSON.stringify({ query: `subscription { operationChanged(id: "${id}") { status } }` }),
    ...(signal && { signal }),
  })
}

test('one user with 200 subscriptions gets 429 for another, others get theirs, and places that are left are free', async () => {
  const id = await apis.submit()
  const leaving = new AbortController()
  const open = await Promise.all(Array.from({ length: 200 }, () => follow(id, 'ana', leaving.signal)))
  expect(open.map(({ status }) => status)).toEqual(Array(200).fill(200))
  const refused = await follow(id, 'ana')
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([429, '1'])
  expect(await refused.text()).toContain('"code":"too-many-requests"')
  expect((await follow('none', 'bob')).status).toBe(404)
  expect((await follow('none', 'nobody')).status).toBe(401)
  // None of them has read anything.
  leaving.abort()
  await eventually(async () => {
    const again = new AbortController()
    const { status } = await follow(id, 'ana', again.signal)
    again.abort()
    return status === 200
  })
})
