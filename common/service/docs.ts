import { createHash, timingSafeEqual } from 'node:crypto'
import { Hono } from 'hono'
import { html } from 'hono/html'
import { secureHeaders } from 'hono/secure-headers'
import { openAPIRouteHandler } from 'hono-openapi'
import type { Registry } from 'prom-client'
import { bearerToken } from './auth.ts'
import { Problem, type ProblemCode, problems } from './problem.ts'

/** Where the page at `/` leads to: paths of this service, or URLs of another. */
export interface Link {
  readonly href: string
  readonly text: string
}

const ownLinks: readonly Link[] = [
  { href: '/docs', text: 'HTTP API' },
  { href: '/openapi.json', text: 'OpenAPI description' },
  { href: '/problems', text: 'Problems: what the error codes mean' },
  { href: '/health/ready', text: 'Health' },
  { href: '/metrics', text: 'Metrics' },
]

/**
 * What a service says of itself: `/` (a page of links, unless the service has one of its own), `/openapi.json` (made from
 * the validators of `app`), `/docs`, `/problems/<code>`, `/metrics`. Mounted last: they describe the routes that exist by
 * then, and a page at `/` that the service has mounted answers first.
 */
export function addDocs(
  app: Hono,
  options: {
    title: string
    description: string
    url: string
    links: readonly Link[]
    metrics: Registry
    metricsToken?: string | undefined
  },
): void {
  const { title, description, url, links, metrics, metricsToken } = options
  const items = [...ownLinks, ...links].map(({ href, text }) => html`<li><a href="${href}">${text}</a></li>`)
  app.get('/', (c) => c.html(page(title, html`<p>${description}</p><ul>${items}</ul>`)))
  app.get(
    '/openapi.json',
    openAPIRouteHandler(app, {
      documentation: {
        info: { title, description, version: '1.0.0' },
        servers: [{ url }],
        components: { securitySchemes: { bearer: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } } },
      },
      defaultValidationErrorResponse: false,
    }),
  )
  app.get('/metrics', async (c) => {
    if (metricsToken !== undefined && !isSame(bearerToken(c.req.header('authorization')), metricsToken))
      throw new Problem('invalid-token', 'The metrics are for whoever has METRICS_TOKEN.')
    return c.text(await metrics.metrics(), 200, { 'Content-Type': metrics.contentType, 'Cache-Control': 'no-store' })
  })
  app.route('/problems', problemPages())
  app.route('/docs', docsPage(title))
}

/** Takes as long for every guess. */
function isSame(given: string, expected: string): boolean {
  const hash = (text: string) => createHash('sha256').update(text).digest()
  return timingSafeEqual(hash(given), hash(expected))
}

function problemPages(): Hono {
  const list = Object.entries(problems)
  return new Hono()
    .get('/', (c) =>
      c.html(
        page(
          'Problems',
          html`<ul>${list.map(([code, { title }]) => html`<li><a href="/problems/${code}">${code}</a>: ${title}</li>`)}</ul>`,
        ),
      ),
    )
    .get('/:code', (c) => {
      const code = c.req.param('code')
      if (!isProblemCode(code)) throw new Problem('not-found', 'There is no problem of this name.')
      const { title, status, help } = problems[code]
      return c.html(page(title, html`<p><code>${code}</code>, status ${status}</p><p>${help}</p>`))
    })
}

function isProblemCode(code: string): code is ProblemCode {
  return Object.hasOwn(problems, code)
}

function page(title: string, body: ReturnType<typeof html>) {
  return html`<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><title>${title}</title><h1>${title}</h1>${body}</html>`
}

const bundle = (name: string) => Bun.file(new URL(import.meta.resolve(`swagger-ui-dist/${name}`)))

function docsPage(title: string): Hono {
  // Swagger UI is served from the package on disk: the page works without the internet.
  const setup = 'SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true })'
  return new Hono()
    .use(
      secureHeaders({
        contentSecurityPolicy: {
          defaultSrc: ["'none'"],
          scriptSrc: ["'self'"],
          styleSrc: ["'self'", "'unsafe-inline'"],
          imgSrc: ["'self'", 'data:'],
          connectSrc: ["'self'"],
          frameAncestors: ["'none'"],
        },
        crossOriginResourcePolicy: 'same-origin',
      }),
    )
    .get('/', (c) =>
      c.html(
        html`<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><link rel="icon" href="data:,"><title>${title}</title><link rel="stylesheet" href="/docs/swagger-ui.css"><div id="docs"></div><script src="/docs/swagger-ui-bundle.js"></script><script src="/docs/setup.js"></script></html>`,
      ),
    )
    .get('/swagger-ui.css', () => new Response(bundle('swagger-ui.css')))
    .get('/swagger-ui-bundle.js', () => new Response(bundle('swagger-ui-bundle.js')))
    .get('/setup.js', (c) => c.body(setup, 200, { 'Content-Type': 'text/javascript' }))
}
