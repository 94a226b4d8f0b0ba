import type { Hono } from 'hono'
import { ConfigError } from './config.ts'

/** Where a service listens: bound before the service is made, so that its address is known when port 0 was asked for. */
export interface Listener {
  readonly port: number
  serve(app: Pick<Hono, 'fetch'>): void
  /** Stops accepting. Resolves when the requests under way are answered, or after `graceMs`, when they are cut off. */
  stop(graceMs: number): Promise<void>
}

/**
 * Until `serve` is called it answers 503.
 * @throws Error where the address cannot be listened on.
 */
export function listen(host: string, port: number): Listener {
  const starting = () => new Response(null, { status: 503, headers: { 'Retry-After': '1' } })
  // Longer than `Prefer: wait=30`, and than the pause between two pings of a stream.
  const server = Bun.serve({ hostname: host, port, idleTimeout: 60, fetch: starting })
  return {
    port: server.port ?? port,
    serve: (app) => server.reload({ fetch: (request) => app.fetch(request, { server }) }),
    async stop(graceMs) {
      const answered = server.stop().then(() => true)
      if (!(await Promise.race([answered, Bun.sleep(graceMs).then(() => false)]))) await server.stop(true)
    },
  }
}

/** @throws ConfigError that names the variable, where the address cannot be listened on. */
export function listenAsConfigured({ host, port }: { host: string; port: number }, variable: string): Listener {
  try {
    return listen(host, port)
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? ` (${error.code})` : ''
    throw new ConfigError([`${variable}: ${host}:${port} is taken or cannot be listened on${reason}`])
  }
}
