import { CurrencyCode, RateTable } from '@posta/common/operations/rates.ts'
import type { Authenticated, TokenVerifier } from '@posta/common/service/auth.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { json, routesOf } from '@posta/common/service/route.ts'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Results } from './results/results.ts'

const ShownRates = v.object({ ...RateTable.entries, storedAt: v.string() })

/** The tables that `store-rates` stored. */
export function rateRoutes({
  results,
  verify,
}: {
  readonly results: Results
  readonly verify: TokenVerifier
}): Hono<Authenticated> {
  const route = routesOf('rates', verify)
  return new Hono<Authenticated>().get(
    '/:base',
    ...route({
      summary: 'The newest stored rate table of a currency',
      description: 'The table with the latest date that any `store-rates` operation has stored.',
      caller: 'user',
      answers: { 200: json(ShownRates, 'The rate table.') },
      problems: ['malformed-request', 'not-found'],
    }),
    async (c) => {
      const base = v.safeParse(CurrencyCode, c.req.param('base'))
      if (!base.success) throw new Problem('malformed-request', 'The path must end in a currency code such as USD.')
      const newest = await results.newest('store-rates', base.output)
      if (!newest || newest.status === 'running')
        throw new Problem('not-found', `No rates of ${base.output} are stored. Submit a store-rates operation first.`)
      return c.json({ ...v.parse(RateTable, newest.facts), storedAt: newest.completedAt })
    },
  )
}
