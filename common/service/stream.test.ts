import { expect, test } from 'bun:test'
import { connect } from 'node:net'
import { Hono } from 'hono'
import { testApp } from '../testing/app.ts'
import { eventually } from '../testing/eventually.ts'
import { Problem } from './problem.ts'
import { streamEvents } from './stream.ts'

function start() {
  let begun = 0
  let ended = 0
  const app = new Hono().get('/stream', (c) =>
    streamEvents(c, new AbortController().signal, async function* (signal) {
      begun += 1
      try {
        yield { event: 'first', data: { n: 1 } }
        const left = Promise.withResolvers<void>()
        signal.addEventListener('abort', () => left.resolve())
        await left.promise
      } finally {
        ended += 1
      }
    }),
  )
  const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: app.fetch })
  return { url: new URL('/stream', server.url), counts: () => ({ begun, ended }), stop: () => server.stop(true) }
}

test('a stream ends when its client leaves', async () => {
  const { url, counts, stop } = start()
  const leaving = new AbortController()
  const response = await fetch(url, { signal: leaving.signal })
  await response.body?.getReader().read()
  expect(counts()).toEqual({ begun: 1, ended: 0 })
  leaving.abort()
  await eventually(() => counts().ended > 0)
  await stop()
})

test('a HEAD gets the headers of a stream and begins none, which nobody would ever leave', async () => {
  const { url, counts, stop } = start()
  const response = await fetch(url, { method: 'HEAD' })
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toBe('text/event-stream')
  expect(counts()).toEqual({ begun: 0, ended: 0 })
  await stop()
})

test('events are taken only as fast as their client reads', async () => {
  let taken = 0
  const app = new Hono().get('/stream', (c) =>
    streamEvents(c, new AbortController().signal, async function* (signal) {
      while (!signal.aborted) {
        taken += 1
        yield { event: 'large', data: 'x'.repeat(100_000) }
      }
    }),
  )
  const server = Bun.serve({ port: 0, hostname: '127.0.0.1', fetch: app.fetch })
  const client = connect(server.port ?? 0, '127.0.0.1').pause()
  client.write('GET /stream HTTP/1.1\r\nHost: test\r\n\r\n')
  // The connection holds some megabytes.
  await eventually(() => taken >= 2)
  await Bun.sleep(200)
  const stalledAt = taken
  expect(stalledAt).toBeLessThan(1000)
  await Bun.sleep(200)
  expect(taken).toBe(stalledAt)
  client.resume()
  await eventually(() => taken >= stalledAt + 100)
  client.destroy()
  await server.stop(true)
})

test('a problem that comes before the first event is answered as one', async () => {
  const app = testApp().get('/stream', (c) =>
    // biome-ignore lint/correctness/useYield: it fails before it has an event
    streamEvents(c, new AbortController().signal, async function* () {
      throw new Problem('too-many-requests', undefined, { retryAfterS: 1 })
    }),
  )
  const response = await app.request('/stream')
  expect([response.status, response.headers.get('retry-after')]).toEqual([429, '1'])
  expect(await response.json()).toMatchObject({ title: 'Too many requests' })
})
