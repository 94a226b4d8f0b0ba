import type { Hono } from 'hono'
import { type ServiceName, serviceNames, TITLE } from '../name.ts'
import type { Component } from './component.ts'
import type { CommonConfig } from './config.ts'
import { within } from './deadline.ts'
import type { Deps } from './deps.ts'
import { addDocs, type Link } from './docs.ts'
import { forbiddenRequest, withoutUser } from './forbidden.ts'
import { healthRoutes } from './health.ts'
import { createApp } from './http.ts'
import type { Listener } from './listener.ts'
import { createLog, type Logger } from './log.ts'
import { createMetrics } from './metrics.ts'
import { createTally } from './tally.ts'

export interface Service {
  readonly name: string
  readonly port: number
  start(): Promise<void>
  /** Stops accepting, finishes what is under way, closes every component. Within 8 s. */
  close(): Promise<void>
  /** Rejects when a component has given up. Resolves after `close`. */
  readonly ended: Promise<void>
}

const DRAIN_MS = 8000

/**
 * What every service begins with. `complete` adds health, docs and a page of links at `/` to the routes that exist by then,
 * and makes the service.
 * @example
 * const { app, log, complete } = beginService('processor', config, deps)
 * app.route('/results', resultRoutes({ results, verify }))
 * return complete(listener, { description: 'Performs operations.', components: [store, broker, requests] })
 */
export function beginService(name: ServiceName, config: CommonConfig, deps: Deps) {
  const log = createLog(name, config.logLevel)
  const metrics = createMetrics(name)
  const closing = new AbortController()
  const forbidden = createTally(withoutUser, deps.now)
  const { trustedProxies } = config
  const app = createApp({
    config,
    log,
    metrics,
    deps,
    onForbidden: (c, route) => forbidden.add(forbiddenRequest(c, { service: name, route, trustedProxies })),
  })
  return {
    log,
    metrics,
    app,
    /** The requests that were answered with 403, to be told of. */
    forbidden,
    /** Aborts when the service begins to close: streams and waits end. */
    closing: closing.signal,
    complete(
      listener: Listener,
      options: { description: string; links?: readonly Link[]; components: readonly Component[] },
    ) {
      const { description, links = [], components } = options
      const others = serviceNames.filter((other) => other !== name)
      app.route('/health', healthRoutes(components, closing.signal, log))
      addDocs(app, {
        title: `${TITLE} ${name}`,
        description,
        url: config.urls[name],
        links: [...links, ...others.map((other) => ({ href: config.urls[other], text: `${TITLE} ${other}` }))],
        metrics,
        metricsToken: config.metricsToken,
      })
      return createService({ name, listener, app, components, log, closing })
    },
  }
}

/** Makes a service of its components. */
export function createService(options: {
  name: string
  listener: Listener
  app: Pick<Hono, 'fetch'>
  components: readonly Component[]
  log: Logger
  closing: AbortController
}): Service {
  const { name, listener, app, components, log, closing } = options
  const ended = Promise.withResolvers<void>()
  ended.promise.catch(() => {})
  let closed: Promise<void> | undefined

  async function close(): Promise<void> {
    const deadlineMs = performance.now() + DRAIN_MS
    const leftMs = () => Math.max(0, deadlineMs - performance.now())
    log.info('closing')
    // Streams and waits end now. Other requests are finished.
    closing.abort()
    await listener.stop(leftMs() / 2)
    for (const component of components.toReversed()) {
      try {
        await within(Promise.resolve(component.close?.(leftMs() / 2)), leftMs(), 'Closing')
      } catch (error) {
        log.error({ err: error, component: component.name }, 'a component did not close in order')
      }
    }
    log.info('closed')
    ended.resolve()
  }

  return {
    name,
    port: listener.port,
    async start() {
      for (const component of components) {
        await component.start?.()
        component.ended?.catch((error: unknown) => {
          log.fatal({ err: error, component: component.name }, 'a component has given up')
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
