import type { Hono } from 'hono'
import { ConfigError } from './config.ts'
import { within } from './deadline.ts'

/** Where a service listens. It is bound before the service is made, so that the port is known where 0 was asked for. */
export interface Listener {
  readonly port: number
  serve(app: Pick<Hono, 'fetch'>): void
  /** Stops accepting. Resolves when every request is answered. After `graceMs` it closes the connections that are left. */
  stop(graceMs: number): Promise<void>
}

/** Listens, and answers 503 until `serve` is called. @throws Error if it cannot listen there. */
export function listen(host: string, port: number): Listener {
  const starting = () => new Response(null, { status: 503, headers: { 'Retry-After': '1' } })
  // Longer than `Prefer: wait=30`, and longer than the pause between two pings of a stream.
  const server = Bun.serve({ hostname: host, port, idleTimeout: 60, fetch: starting })
  return {
    port: server.port ?? port,
    serve: (app) => server.reload({ fetch: (request) => app.fetch(request, { server }) }),
    stop: (graceMs) => within(server.stop(), graceMs, 'Answering').catch(() => server.stop(true)),
  }
}

/** Like `listen`. @throws ConfigError that names `variable`, if it cannot listen there. */
export function listenAsConfigured({ host, port }: { host: string; port: number }, variable: string): Listener {
  try {
    return listen(host, port)
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? ` (${error.code})` : ''
    throw new ConfigError([`${variable}: ${host}:${port} is taken or cannot be listened on${reason}`])
  }
}
