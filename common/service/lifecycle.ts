import type { Hono } from 'hono'
import { ConfigError, type Environment } from './config.ts'
import type { Logger } from './log.ts'

/** Where a service listens: bound before the service is made, so that its address is known when port 0 was asked for. */
export interface Listener {
  readonly port: number
  serve(app: Pick<Hono, 'fetch'>): void
  /** Stops accepting; resolves when the requests under way are answered, or cuts them off after `graceMs`. */
  stop(graceMs: number): Promise<void>
}

/** @throws Error where the address cannot be had. */
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

/** A part of a service that runs: what it starts, and how it leaves. */
export interface Part {
  readonly name: string
  /** Rejects where the service cannot run without it and waiting would not help. */
  start?(): Promise<void>
  /** Leaves within about `graceMs`, with nothing lost that was promised. */
  close?(graceMs: number): Promise<void>
  /** Rejects when the part has given up: the process should end and be started anew. */
  readonly ended?: Promise<void>
}

export interface Service {
  readonly name: string
  readonly port: number
  start(): Promise<void>
  /** Stops accepting, finishes what is under way, closes every part. Within 8 s. */
  close(): Promise<void>
  /** Rejects when a part has given up. Resolves after `close`. */
  readonly ended: Promise<void>
}

const DRAIN_MS = 8000

/** A service of its parts, started in their order and closed in the reverse one, after HTTP. */
export function service(options: {
  name: string
  listener: Listener
  app: Pick<Hono, 'fetch'>
  parts: readonly Part[]
  log: Logger
  closing: AbortController
}): Service {
  const { name, listener, app, parts, log, closing } = options
  const ended = Promise.withResolvers<void>()
  ended.promise.catch(() => {})
  let closed: Promise<void> | undefined

  async function close(): Promise<void> {
    const deadlineMs = performance.now() + DRAIN_MS
    const leftMs = () => Math.max(0, deadlineMs - performance.now())
    log.info('closing')
    // Whoever streams or waits is told; requests that only work are let finish.
    closing.abort()
    await listener.stop(leftMs() / 2)
    for (const part of parts.toReversed()) {
      try {
        await Promise.race([
          part.close?.(leftMs() / 2),
          Bun.sleep(leftMs()).then(() => Promise.reject(new Error('It took too long.'))),
        ])
      } catch (error) {
        log.error({ err: error, part: part.name }, 'a part did not close in order')
      }
    }
    log.info('closed')
    ended.resolve()
  }

  return {
    name,
    port: listener.port,
    async start() {
      for (const part of parts) {
        await part.start?.()
        part.ended?.catch((error: unknown) => {
          log.fatal({ err: error, part: part.name }, 'a part has given up')
          ended.reject(error)
        })
      }
      listener.serve(app)
      log.info({ port: listener.port }, 'ready')
    },
    close() {
      closed ??= close()
      return closed
    },
    ended: ended.promise,
  }
}

/**
 * Runs a service as a process: from the environment to exit. Configuration that cannot work ends it with code 1 and one
 * message with every fault; SIGTERM and SIGINT drain it, a second one ends it at once.
 */
export async function run<Config extends { readonly host: string; readonly port: number }>(options: {
  portVariable: string
  readConfig: (environment: Environment) => Config
  create: (config: Config, listener: Listener) => Promise<Service> | Service
}): Promise<void> {
  const { portVariable, readConfig, create } = options
  try {
    let config = readConfig(process.env)
    const listener = listenAsConfigured(config, portVariable)
    // Port 0: the system chose one, and addresses follow from it.
    if (config.port === 0) config = readConfig({ ...process.env, [portVariable]: String(listener.port) })
    const running = await create(config, listener)
    let asked = false
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (asked) process.exit(1)
        asked = true
        void running.close()
      })
    }
    await running.start()
    await running.ended.catch(async (error: unknown) => {
      await running.close()
      throw error
    })
    process.exit(0)
  } catch (error) {
    console.error(error instanceof ConfigError ? error.message : error)
    process.exit(1)
  }
}

/** @throws ConfigError */
function listenAsConfigured({ host, port }: { host: string; port: number }, portVariable: string): Listener {
  try {
    return listen(host, port)
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? ` (${error.code})` : ''
    throw new ConfigError([`${portVariable}: ${host}:${port} is taken or cannot be listened on${reason}`])
  }
}
