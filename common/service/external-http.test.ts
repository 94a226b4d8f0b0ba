import { afterEach, expect, test } from 'bun:test'
import { systemDeps } from './deps.ts'
import { createHttp, failureText } from './external-http.ts'

const servers: ReturnType<typeof Bun.serve>[] = []

afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop(true)
})

/** An API on this machine, and how often it was asked. */
function serve(answer: (asked: number) => Response) {
  let asked = 0
  const server = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => answer(++asked) })
  servers.push(server)
  return { url: server.url.href, asked: () => asked }
}

const http = createHttp(systemDeps)

test('an answer is read, also after one that said 503', async () => {
  const api = serve((asked) => (asked === 1 ? new Response('busy', { status: 503 }) : Response.json({ name: 'Ana' })))
  expect(await http.get(api.url).json<unknown>()).toEqual({ name: 'Ana' })
  expect(api.asked()).toBe(2)
})

test('an answer of more than 1 MiB is cut off', async () => {
  const api = serve(() => new Response(new Uint8Array(1024 * 1024 + 1)))
  await expect(http.get(api.url).arrayBuffer()).rejects.toThrow('the answer has more than 1048576 bytes')
})

test('a redirect is not followed: it is refused', async () => {
  const api = serve((asked) => (asked === 1 ? Response.redirect('/elsewhere', 302) : Response.json({})))
  await expect(http.get(api.url).json()).rejects.toThrow()
  expect(api.asked()).toBeLessThan(2)
})

test('a caller that gives up is not kept waiting', async () => {
  const api = serve(() => new Response(new ReadableStream({ pull: () => new Promise(() => {}) })))
  const givenUp = new AbortController()
  const answer = http.get(api.url, { signal: givenUp.signal }).text()
  givenUp.abort(new Error('Given up.'))
  await expect(answer).rejects.toThrow()
})

test('why a call failed is said in words, without the URL', async () => {
  const secret = '/?key=secret'
  const failed = (answer: () => Response) =>
    http
      .get(serve(answer).url + secret, { retry: 0 })
      .json()
      .then(() => 'it did not fail', failureText)
  expect(await failed(() => new Response('no', { status: 404 }))).toBe('status 404')
  expect(await failed(() => new Response('no JSON'))).toBe('the answer is not JSON')
  expect(await failed(() => new Response(new Uint8Array(1024 * 1024 + 1)))).toBe(
    'the answer has more than 1048576 bytes',
  )
  expect(await http.get(`http://127.0.0.1:1${secret}`, { retry: 0 }).then(String, failureText)).toBe('ECONNREFUSED')
})
