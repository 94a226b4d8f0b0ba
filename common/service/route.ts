import type { MiddlewareHandler } from 'hono'
import { type DescribeRouteOptions, describeRoute, resolver, validator } from 'hono-openapi'
import * as v from 'valibot'
import { type Authenticated, authenticate, type TokenVerifier } from './auth.ts'
import { checkInput, Problem, type ProblemCode, problems } from './problem.ts'

interface RouteOptions {
  readonly summary: string
  readonly description?: string
  /** Who may call it: anyone, whoever shows a valid access token, or operators only. */
  readonly caller: 'anyone' | 'user' | 'operator'
  readonly parameters?: NonNullable<DescribeRouteOptions['parameters']>
  /** What it answers when it succeeds, by status: see `json`. */
  readonly answers: NonNullable<DescribeRouteOptions['responses']>
  /** The problems that it may answer with, besides those that follow from `caller`, `body` and `query`. */
  readonly problems?: readonly ProblemCode[]
}

type Guard = MiddlewareHandler<Authenticated>
type Validator<Target extends 'json' | 'query', Schema extends v.GenericSchema> = ReturnType<
  typeof validate<Target, Schema>
>

const callerProblems: Readonly<Record<RouteOptions['caller'], readonly ProblemCode[]>> = {
  anyone: [],
  user: ['invalid-token', 'keys-unavailable'],
  operator: ['invalid-token', 'keys-unavailable', 'forbidden'],
}
const queryProblems = ['malformed-request', 'invalid-input'] as const
const bodyProblems = [...queryProblems, 'payload-too-large', 'unsupported-media-type'] as const

/**
 * Makes the middleware of the routes with a tag. Each checks who calls (`c.var.caller`), validates the body or the query
 * (`c.req.valid`), forbids caches to keep the answer, and describes the route in OpenAPI.
 * @example
 * const route = routesOf('results', verify)
 * new Hono<Authenticated>().get(
 *   '/',
 *   ...route({ summary: 'Your results', caller: 'user', query: Page, answers: { 200: json(Results, 'A page of results.') } }),
 *   async (c) => c.json(await results.page(c.var.caller.user, c.req.valid('query'))),
 * )
 */
export function routesOf(tag: string, verify: TokenVerifier) {
  function route<Body extends v.GenericSchema>(
    options: RouteOptions & { readonly body: Body },
  ): [Guard, Validator<'json', Body>]
  function route<Query extends v.GenericSchema>(
    options: RouteOptions & { readonly query: Query },
  ): [Guard, Validator<'query', Query>]
  function route(options: RouteOptions): [Guard]
  function route(
    options: RouteOptions & { readonly body?: v.GenericSchema; readonly query?: v.GenericSchema },
  ): [Guard, ...MiddlewareHandler[]] {
    const { caller, body, query, answers, problems = [], ...described } = options
    const guard: Guard = async (c, next) => {
      if (caller !== 'anyone') {
        c.set('caller', await authenticate(c.req.header('authorization'), verify))
        if (caller === 'operator' && c.var.caller.role !== 'operator')
          throw new Problem('forbidden', 'This is for operators.')
      }
      await next()
      c.header('Cache-Control', 'no-store')
    }
    const description = describeRoute({
      ...described,
      tags: [tag],
      ...(caller !== 'anyone' && { security: [{ bearer: [] }] }),
      responses: {
        ...answers,
        ...problemResponses([
          ...callerProblems[caller],
          ...(query ? queryProblems : []),
          ...(body ? bodyProblems : []),
          ...problems,
          // Every route may find that its store is down.
          'unavailable',
        ]),
      },
    })
    return [
      Object.assign(guard, description),
      ...(body ? [validate('json', body)] : []),
      ...(query ? [validate('query', query)] : []),
    ]
  }
  return route
}

/** An answer with a JSON body. */
export function json(schema: v.GenericSchema, description: string) {
  return { description, content: { 'application/json': { schema: resolver(schema) } } }
}

/** An answer of server-sent events. */
export function eventStream(description: string) {
  return { description, content: { 'text/event-stream': { schema: { type: 'string' as const } } } }
}

/** Middleware that validates the body or the query, for `c.req.valid`. @throws Problem 400, 415 or 422. */
export function validate<Target extends 'json' | 'query', Schema extends v.GenericSchema>(
  target: Target,
  schema: Schema,
) {
  const validated = validator(target, schema, (result) => {
    // Checked once more, which makes the same problem of the same fault here as everywhere.
    if (!result.success) checkInput(schema, result.data)
  })
  const guarded: typeof validated = async (c, next) => {
    if (target === 'json') requireJson(c.req.header('content-type'))
    return validated(c, next)
  }
  return Object.assign(guarded, validated)
}

/**
 * Refuses a body that does not say it is JSON. What a page of another site can send without being asked, a form, is such a
 * body. @throws Problem `unsupported-media-type`
 */
export function requireJson(contentType: string | undefined): void {
  if (!/^application\/json\s*(?:;|$)/i.test(contentType?.trim() ?? ''))
    throw new Problem('unsupported-media-type', 'Send the body as JSON with `Content-Type: application/json`.')
}

const ProblemDetails = v.object({
  type: v.string(),
  code: v.string(),
  title: v.string(),
  status: v.number(),
  detail: v.string(),
  errors: v.optional(v.array(v.object({ pointer: v.string(), detail: v.string() }))),
})

/** Problems by their status. */
function problemResponses(codes: readonly ProblemCode[]) {
  const byStatus = Object.groupBy(codes, (code) => problems[code].status)
  return Object.fromEntries(
    Object.entries(byStatus).map(([status, same = []]) => [
      status,
      {
        description: same.map((code) => `\`${code}\`: ${problems[code].title}.`).join(' '),
        content: { 'application/problem+json': { schema: resolver(ProblemDetails) } },
      },
    ]),
  )
}
