import { Hono } from 'hono'
import { secureHeaders } from 'hono/secure-headers'

const file = (name: string) => Bun.file(new URL(name, import.meta.url))

/** The page at `/`: people sign in at gateway, and then see the latest events. Browsers run `page.js` as it is in the file. */
export function dashboard({ gateway, monitor }: { gateway: string; monitor: string }): Hono {
  const policy = secureHeaders({
    contentSecurityPolicy: {
      defaultSrc: ["'none'"],
      scriptSrc: ["'self'"],
      styleSrc: ["'self'"],
      connectSrc: ["'self'", new URL(gateway).origin],
      imgSrc: ['data:'],
      formAction: ["'none'"],
      baseUri: ["'none'"],
      frameAncestors: ["'none'"],
      requireTrustedTypesFor: ["'script'"],
    },
    crossOriginResourcePolicy: 'same-origin',
    xFrameOptions: 'DENY',
  })
  const page = async () =>
    (await file('page.html').text())
      .replace('{gateway}', () => Bun.escapeHTML(gateway))
      .replace('{monitor}', () => Bun.escapeHTML(monitor))
  return new Hono()
    .get('/', policy, async (c) => c.html(await page(), 200, { 'Cache-Control': 'no-cache' }))
    .get('/dashboard/page.js', policy, () => serve('page.js', 'text/javascript; charset=utf-8'))
    .get('/dashboard/page.css', policy, () => serve('page.css', 'text/css; charset=utf-8'))
}

function serve(name: string, type: string): Response {
  return new Response(file(name), { headers: { 'Content-Type': type, 'Cache-Control': 'no-cache' } })
}
