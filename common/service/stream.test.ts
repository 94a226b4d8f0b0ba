import { expect, test } from 'bun:test'
import { Hono } from 'hono'
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
  while (counts().ended === 0) await Bun.sleep(5)
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
