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
 * Comments in between keep the connection open. The answer begins with the first event: what `events` throws before it is
 * thrown here, so that a problem is answered as one.
 * @example
 * new Hono().get('/stream', (c) => streamEvents(c, closing, (signal) => changesOf(id, signal)))
 */
export async function streamEvents(
  c: Context,
  closing: AbortSignal,
  events: (signal: AbortSignal) => AsyncGenerator<ServerSentEvent, void, void>,
): Promise<Response> {
  if (c.req.method === 'HEAD') return headOfStream(c)
  const left = new AbortController()
  const each = events(AbortSignal.any([closing, left.signal]))
  const first = await each.next()
  c.header('Cache-Control', 'no-store')
  c.header('X-Accel-Buffering', 'no')
  return streamSSE(c, async (stream) => {
    stream.onAbort(() => left.abort())
    const ping = setInterval(() => void stream.write(': ping\n\n'), PING_MS)
    try {
      for (let next = first; !next.done; next = await each.next()) {
        const { data, ...rest } = next.value
        await stream.writeSSE({ ...rest, data: JSON.stringify(data) })
      }
    } finally {
      clearInterval(ping)
      left.abort()
      await each.return()
    }
  })
}

/** The answer to a HEAD. A stream that began for it would never end: it has no reader who could leave. */
export function headOfStream(c: Context): Response {
  return c.body(null, 200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
}
