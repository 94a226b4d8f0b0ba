import { renderGraphiQL } from '@graphql-yoga/render-graphiql'
import { TITLE } from '@posta/common/name.ts'
import { clientAddress } from '@posta/common/service/client-address.ts'
import type { CommonConfig } from '@posta/common/service/config.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { requireJson } from '@posta/common/service/route.ts'
import { createYoga } from 'graphql-yoga'
import { Hono } from 'hono'
import { secureHeaders } from 'hono/secure-headers'
import { PROOF_HEADER } from '../rest/accounts.ts'
import { maskError, maskValidationErrors, statusOfSubscriptions } from './errors.ts'
import { documentCaches, limits } from './limits.ts'
import { createSchema, type RequestContext, type SchemaOptions } from './schema.ts'

const FIRST_QUERY = `# Log in, then put the token into Headers below: { "Authorization": "Bearer …" }
mutation {
  login(input: { email: "me@example.com", password: "a long sentence that only I know" }) {
    accessToken
  }
}
`

/** `/graphql`: queries and mutations by POST, subscriptions as server-sent events, and GraphiQL unless in production. */
export function graphqlRoutes(
  options: SchemaOptions & { config: Pick<CommonConfig, 'production' | 'trustedProxies'>; log: Logger },
): Hono {
  const { config, log } = options
  const mask = maskError(log, { suggestions: !config.production })
  const yoga = createYoga<RequestContext>({
    schema: createSchema(options),
    graphqlEndpoint: '/graphql',
    landingPage: false,
    graphiql: config.production ? false : { title: TITLE, subscriptionsProtocol: 'SSE', defaultQuery: FIRST_QUERY },
    renderGraphiQL,
    // The app around it handles CORS.
    cors: false,
    logging: false,
    batching: false,
    multipart: false,
    parserAndValidationCache: documentCaches(),
    maskedErrors: { maskError: mask },
    plugins: [limits({ introspection: !config.production }), maskValidationErrors(mask), statusOfSubscriptions()],
  })
  const app = new Hono()
  // GraphiQL has its scripts and styles inline in the page.
  if (!config.production)
    app.use(
      secureHeaders({
        contentSecurityPolicy: {
          defaultSrc: ["'self'", "'unsafe-inline'", 'data:', 'blob:'],
          frameAncestors: ["'none'"],
        },
      }),
    )
  return app.on(['GET', 'POST'], '/', async (c) => {
    // Yoga takes forms and plain documents too.
    if (c.req.method === 'POST') requireJson(c.req.header('content-type'))
    const response = await yoga.fetch(c.req.raw, {
      authorization: c.req.header('authorization') ?? null,
      address: clientAddress(c, config.trustedProxies),
      proof: c.req.header(PROOF_HEADER),
    })
    return new Response(response.body, response)
  })
}
