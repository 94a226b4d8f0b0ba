import type { Context } from 'hono'
import { streamSSE } from 'hono/streaming'

const PING_MS = 15_000

export interface ServerSentEvent {
  readonly event: string
  readonly id?: string
  readonly data: unknown
}

/**
 * Streams what `events` yields as server-sent events with JSON, until it ends, the client leaves or `closing` aborts.
 * Comments in between keep the connection open.
 * @example
 * new Hono().get('/stream', (c) => streamEvents(c, closing, (signal) => changesOf(id, signal)))
 */
export function streamEvents(
  c: Context,
  closing: AbortSignal,
  events: (signal: AbortSignal) => AsyncIterable<ServerSentEvent>,
): Response {
  if (c.req.method === 'HEAD') return headOfStream(c)
  const left = new AbortController()
  const signal = AbortSignal.any([closing, left.signal])
  c.header('Cache-Control', 'no-store')
  c.header('X-Accel-Buffering', 'no')
  return streamSSE(c, async (stream) => {
    stream.onAbort(() => left.abort())
    const ping = setInterval(() => void stream.write(': ping\n\n'), PING_MS)
    try {
      for await (const { data, ...rest } of events(signal))
        await stream.writeSSE({ ...rest, data: JSON.stringify(data) })
    } finally {
      clearInterval(ping)
      left.abort()
    }
  })
}

/** The answer to a HEAD. A stream that began for it would never end: it has no reader who could leave. */
export function headOfStream(c: Context): Response {
  return c.body(null, 200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
}
