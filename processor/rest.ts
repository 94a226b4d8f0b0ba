import { operationTypes } from '@posta/common/operations/catalog.ts'
import { limits } from '@posta/common/operations/limits.ts'
import type { Authenticated, Caller, TokenVerifier } from '@posta/common/service/auth.ts'
import { decodeCursor, pageOf, pageQuery, toPage } from '@posta/common/service/pages.ts'
import { Problem, problemCodes } from '@posta/common/service/problem.ts'
import { json, routesOf } from '@posta/common/service/route.ts'
import Big from 'big.js'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Outcome, Results } from './results/results.ts'

const members = {
  id: v.string(),
  user: v.string(),
  type: v.picklist(operationTypes),
  status: v.picklist(['succeeded', 'failed']),
  input: v.optional(v.record(v.string(), v.unknown())),
  output: v.optional(v.record(v.string(), v.unknown())),
  error: v.optional(v.object({ code: v.picklist(problemCodes), message: v.string() })),
  counts: v.optional(
    v.pipe(
      v.object({ limit: v.string(), period: v.string(), amount: v.string() }),
      v.description("What it counts against the user's limit. Absent if nothing."),
    ),
  ),
  createdAt: v.string(),
  completedAt: v.string(),
}
const ShownResult = v.object(members)
const ShownResultWithFacts = v.object({ ...members, facts: v.optional(v.record(v.string(), v.unknown())) })

const Cursor = v.object({ completedAt: v.string(), id: v.string() })

interface Options {
  readonly results: Results
  readonly verify: TokenVerifier
}

export function resultRoutes({ results, verify }: Options): Hono<Authenticated> {
  const route = routesOf('results', verify)
  return new Hono<Authenticated>()
    .get(
      '/',
      ...route({
        summary: "Results, newest first: your own, or everyone's for an operator",
        caller: 'user',
        query: v.strictObject(pageQuery),
        answers: { 200: json(pageOf(ShownResult), 'A page of results.') },
      }),
      async (c) => {
        const { limit, cursor } = c.req.valid('query')
        const before = decodeCursor(Cursor, cursor)
        const found = await results.page({ ...ownOnly(c.var.caller), limit: limit + 1, ...(before && { before }) })
        return c.json(toPage(found, limit, shown, ({ completedAt, id }) => ({ completedAt, id })))
      },
    )
    .get(
      '/:id',
      ...route({
        summary: 'The result of an operation, with the facts that it was decided on',
        caller: 'user',
        answers: { 200: json(ShownResultWithFacts, 'The result.') },
        problems: ['not-found'],
      }),
      async (c) => {
        const { user } = ownOnly(c.var.caller)
        const found = await results.get(c.req.param('id'))
        if (!found || found.status === 'running' || (user !== undefined && found.user !== user))
          throw new Problem(
            'not-found',
            'You have no result with this id. An operation has a result once it has been performed.',
          )
        return c.json({ ...shown(found), facts: found.facts })
      },
    )
}

/** Operators see everyone's results, other users their own. */
function ownOnly({ user, role }: Caller): { user?: string } {
  return role === 'operator' ? {} : { user }
}

function shown(result: Outcome): v.InferOutput<typeof ShownResult> {
  const { id, user, type, status, input, createdAt, completedAt } = result
  return {
    id,
    user,
    type,
    status,
    input,
    ...(result.status === 'succeeded' ? { output: result.output } : { error: result.error }),
    ...(result.counts && { counts: { ...result.counts, amount: decimal(result.counts) } }),
    createdAt,
    completedAt,
  }
}

/** An amount of a limit's units, as a decimal number. */
function decimal({ limit, amount }: { readonly limit: string; readonly amount: number }): string {
  const digits = limits.find(({ name }) => name === limit)?.digits ?? 0
  return new Big(amount).div(new Big(10).pow(digits)).toFixed()
}
