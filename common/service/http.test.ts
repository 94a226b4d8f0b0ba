import { describe, expect, spyOn, test } from 'bun:test'
import { connect } from 'node:net'
import { Hono } from 'hono'
import { Registry } from 'prom-client'
import * as v from 'valibot'
import { eventually } from '../testing/eventually.ts'
import { clientAddress } from './client-address.ts'
import { commonEntries, readConfig, resolveConfig } from './config.ts'
import { systemDeps } from './deps.ts'
import { createApp } from './http.ts'
import { createLog } from './log.ts'
import { Problem } from './problem.ts'
import { validate } from './route.ts'

function makeApp(log = createLog('test', 'silent')) {
  const config = resolveConfig('gateway', readConfig(commonEntries, {}))
  return createApp({ config, log, metrics: new Registry(), deps: systemDeps })
    .get('/broken', () => {
      throw new Error('a secret of the inside')
    })
    .get('/busy', () => {
      throw new Problem('overloaded', 'Too many.', { retryAfterS: 1.2 })
    })
    .post('/things', validate('json', v.strictObject({ name: v.string() })), (c) => c.json(c.req.valid('json')))
}

describe('an app', () => {
  test('tells nothing of what broke inside, and gives the request an id to find it by', async () => {
    const response = await makeApp().request('/broken')
    expect(response.status).toBe(500)
    expect(response.headers.get('x-request-id')).toMatch(/^[\w-]{36}$/)
    expect(await response.text()).not.toContain('secret')
  })

  test('does not log an error where a client breaks off in the middle of its body', async () => {
    const log = createLog('test', 'silent')
    const errors = spyOn(log, 'error')
    const requests = spyOn(log, 'debug')
    const app = makeApp(log)
    let begun = 0
    const fetch = (request: Request) => {
      begun += 1
      return app.fetch(request)
    }
    const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch })
    for (const [n, rest] of [
      'Content-Length: 100\r\n\r\n{',
      'Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n',
    ].entries()) {
      const socket = connect(server.port ?? 0, '127.0.0.1')
      socket.write(`POST /things HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n${rest}`)
      await eventually(() => begun > n)
      socket.destroy()
      await eventually(() => requests.mock.calls.length > n)
    }
    expect(errors).not.toHaveBeenCalled()
    await server.stop(true)
  })

  test('refuses a request with two Host headers, which a proxy may have read otherwise', async () => {
    const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: makeApp().fetch })
    const statusOf = async (headers: string) => {
      const socket = connect(server.port ?? 0, '127.0.0.1')
      socket.write(`GET /problem HTTP/1.1\r\n${headers}Connection: close\r\n\r\n`)
      let answer = ''
      for await (const chunk of socket) answer += String(chunk)
      return Number(answer.split(' ')[1])
    }
    expect(await statusOf('Host: gateway.test\r\n')).toBe(404)
    expect(await statusOf('Host: gateway.test\r\nHost: evil.test\r\n')).toBe(400)
    expect(await statusOf('Host: gateway.test\r\nhost: gateway.test\r\n')).toBe(400)
    await server.stop(true)
  })

  test('keeps a request id that a client sends, unless it is unfit for a log', async () => {
    const idOf = async (id: string) =>
      (await makeApp().request('/busy', { headers: { 'x-request-id': id } })).headers.get('x-request-id')
    expect(await idOf('mine-1')).toBe('mine-1')
    expect(await idOf('x"} {"forged')).not.toContain('forged')
  })

  test('says when to come back, in whole seconds', async () => {
    expect((await makeApp().request('/busy')).headers.get('retry-after')).toBe('2')
  })

  test('lets the pages of the three services call it, and no others', async () => {
    const originOf = async (origin: string) =>
      (await makeApp().request('/busy', { headers: { origin } })).headers.get('access-control-allow-origin')
    expect(await originOf('http://127.0.0.1:3002')).toBe('http://127.0.0.1:3002')
    expect(await originOf('https://evil.example.com')).toBeNull()
  })

  test('takes JSON alone, in any spelling of its type', async () => {
    const post = (type: string, body = '{"name":"a"}') =>
      makeApp().request('/things', { method: 'POST', headers: { 'content-type': type }, body })
    expect((await post('application/json')).status).toBe(200)
    expect((await post('Application/JSON; charset=utf-8')).status).toBe(200)
    expect((await post('text/json')).status).toBe(415)
    expect((await post('application/json', '{')).status).toBe(400)
    expect((await post('application/json', '{"name":1}')).status).toBe(422)
  })
})

describe('the address of a client', () => {
  const addressOf = async (peer: string, trusted: string, forwarded?: string) => {
    const { trustedProxies } = resolveConfig('gateway', readConfig(commonEntries, { TRUSTED_PROXIES: trusted }))
    const app = new Hono().get('/', (c) => c.text(clientAddress(c, trustedProxies)))
    const server = { requestIP: () => ({ address: peer, family: 'IPv4', port: 1 }) }
    const response = await app.request(
      '/',
      { headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded } },
      { server },
    )
    return response.text()
  }

  test('is the peer, whatever X-Forwarded-For says, where no proxy is trusted', async () => {
    expect(await addressOf('203.0.113.9', '', '198.51.100.1')).toBe('203.0.113.9')
    expect(await addressOf('::ffff:203.0.113.9', '')).toBe('203.0.113.9')
  })

  test('is the last address in X-Forwarded-For that is no trusted proxy: what stands before it anyone may have written', async () => {
    expect(await addressOf('10.0.0.1', '10.0.0.0/8', '1.1.1.1, 198.51.100.1, 10.0.0.2')).toBe('198.51.100.1')
    expect(await addressOf('10.0.0.1', '10.0.0.0/8')).toBe('10.0.0.1')
    expect(await addressOf('10.0.0.1', '10.0.0.0/8', 'nonsense')).toBe('nonsense')
  })
})
