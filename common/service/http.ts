import { type Context, Hono } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import { cors } from 'hono/cors'
import { HTTPException } from 'hono/http-exception'
import { methodNotAllowed } from 'hono/method-not-allowed'
import { requestId } from 'hono/request-id'
import { routePath } from 'hono/route'
import { secureHeaders } from 'hono/secure-headers'
import { Histogram, type Registry } from 'prom-client'
import type { CommonConfig } from './config.ts'
import type { Deps } from './deps.ts'
import type { Logger } from './log.ts'
import { isOutage } from './outage.ts'
import { Problem, problems } from './problem.ts'
import { continueTrace, withTrace } from './trace.ts'

const MAX_BODY_BYTES = 64 * 1024

/** The HTTP app that every service begins with: request ids, log, metrics, limits, security headers, CORS, error answers. */
export function createApp(options: {
  config: Pick<CommonConfig, 'allowedOrigins' | 'production'>
  log: Logger
  metrics: Registry
  deps: Pick<Deps, 'newId' | 'monotonicMs'>
  /** Called for each request that is answered with 403. */
  onForbidden?: (c: Context, route: string) => void
}): Hono {
  const { config, log, metrics, deps, onForbidden } = options
  const duration = new Histogram({
    name: 'http_server_request_duration_seconds',
    help: 'How long HTTP requests took.',
    labelNames: ['http_request_method', 'http_route', 'http_response_status_code'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
    registers: [metrics],
  })
  const app = new Hono()

  app.use(requestId({ generator: () => deps.newId() }))
  app.use(async (c, next) => {
    const startedMs = deps.monotonicMs()
    await withTrace(continueTrace(c.req.header('traceparent'), c.var.requestId), async () => {
      await next()
      const tookMs = deps.monotonicMs() - startedMs
      const route = c.res.status === 404 && routePath(c, -1).includes('*') ? 'unmatched' : routePath(c, -1)
      duration.observe(
        { http_request_method: c.req.method, http_route: route, http_response_status_code: c.res.status },
        tookMs / 1000,
      )
      log.debug({ method: c.req.method, route, status: c.res.status, tookMs: Math.round(tookMs) }, 'request')
    })
  })
  app.use(async (c, next) => {
    // Bun joins headers of one name. Whoever stands in front may have gone by the other one (RFC 9112, section 3.2).
    if (c.req.header('host')?.includes(','))
      throw new Problem('malformed-request', 'The request has more than one Host header.')
    await next()
  })
  app.use(
    cors({
      origin: [...config.allowedOrigins],
      allowHeaders: [
        'Authorization',
        'Content-Type',
        'Idempotency-Key',
        'Prefer',
        'Registration-Proof',
        'Last-Event-ID',
        'traceparent',
        'X-Request-Id',
      ],
      exposeHeaders: [
        'Location',
        'Preference-Applied',
        'RateLimit',
        'RateLimit-Policy',
        'Refresh-Token',
        'Retry-After',
        'X-Request-Id',
      ],
      maxAge: 600,
    }),
  )
  app.use(
    secureHeaders({
      // A page that needs more has its own policy.
      overwrite: false,
      contentSecurityPolicy: {
        defaultSrc: ["'none'"],
        frameAncestors: ["'none'"],
        baseUri: ["'none'"],
        formAction: ["'none'"],
      },
      // A browser on one service's page calls the others; CORS says which pages may.
      crossOriginResourcePolicy: 'cross-origin',
      strictTransportSecurity: config.production,
      xFrameOptions: 'DENY',
    }),
  )
  app.use(
    bodyLimit({
      maxSize: MAX_BODY_BYTES,
      onError: () => {
        throw new Problem('payload-too-large', `The body has more than ${MAX_BODY_BYTES} bytes.`)
      },
    }),
  )
  app.use(
    methodNotAllowed({
      app,
      onMethodNotAllowed: (c, methods) => {
        c.header('Allow', methods.join(', '))
        return problemResponse(c, new Problem('method-not-allowed', `${c.req.path} takes ${methods.join(', ')}.`))
      },
    }),
  )
  app.notFound((c) => problemResponse(c, new Problem('not-found', 'There is nothing at this path.')))
  app.onError((error, c) => {
    const problem = hasLeft(error, c)
      ? new Problem('malformed-request', 'The connection was closed before the body ended.')
      : toProblem(error)
    logFault(log, problem, { route: routePath(c, -1) })
    if (problem.code === 'forbidden') onForbidden?.(c, routePath(c))
    return problemResponse(c, problem)
  })
  return app
}

/** Whether the client left in the middle of its body. That is not our fault, and anyone could fill the log with it. */
function hasLeft(error: unknown, c: Context): boolean {
  return error instanceof Error && error.name === 'AbortError' && c.req.raw.signal.aborted
}

/** What a caller is told of an error: a problem as it is, and nothing of any other. */
export function toProblem(error: unknown): Problem {
  if (error instanceof Problem) return error
  if (error instanceof HTTPException && error.status === 400)
    return new Problem('malformed-request', 'The body is not JSON.')
  if (isOutage(error)) return new Problem('unavailable', undefined, { retryAfterS: 5, cause: error })
  return new Problem('internal', undefined, { cause: error })
}

/** Logs a request that failed through no fault of the client, with the cause that the client is not told. */
export function logFault(log: Logger, problem: Problem, at: object): void {
  const err = problem.cause ?? problem
  if (problem.code === 'internal') log.error({ err, ...at }, 'a request failed')
  if (problem.code === 'unavailable') log.warn({ err, ...at }, 'a request failed: a store does not answer')
  if (problem.code === 'keys-unavailable')
    log.warn({ err, ...at }, 'a request failed: there are no keys to check tokens')
}

/** The answer for a problem: RFC 9457, and the challenge of RFC 6750, section 3. */
function problemResponse(c: Context, problem: Problem): Response {
  const { code, message: detail, errors, retryAfterS, rateLimit } = problem
  const { status, title } = problems[code]
  if (retryAfterS !== undefined) c.header('Retry-After', String(Math.max(1, Math.ceil(retryAfterS))))
  if (rateLimit) {
    const { name, unit, quota, windowS, remaining, resetS } = rateLimit
    c.header('RateLimit-Policy', `"${name}";q=${quota};qu="${unit}";w=${windowS}`)
    c.header('RateLimit', `"${name}";r=${remaining};t=${resetS}`)
  }
  const refused = code === 'invalid-token' && c.req.header('authorization')
  if (status === 401) c.header('WWW-Authenticate', refused ? 'Bearer error="invalid_token"' : 'Bearer')
  c.header('Content-Type', 'application/problem+json')
  c.header('Cache-Control', 'no-store')
  return c.body(JSON.stringify({ type: `/problems/${code}`, code, title, status, detail, errors }), status)
}
