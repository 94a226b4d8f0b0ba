import type { Catalog } from '@posta/common/operations/catalog.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { Preparer } from './preparer.ts'
import { ratesOf, unknownCurrency } from './rates-of.ts'

/** The rates of `from` that a conversion needs: for `to`, and for USD, in which its limit is. */
export const convert: Preparer<Catalog['convert']> = async ({ input }, { rates }) => {
  const table = await ratesOf('from', input.from, rates)
  const byCode = new Map([[table.base, '1'], ...table.rates.map(({ code, rate }) => [code, rate] as const)])
  if (!byCode.has(input.to)) throw unknownCurrency('to', input.to)
  const needed = [...new Set([input.to, 'USD'])].map((code) => {
    const rate = byCode.get(code)
    if (rate !== undefined) return { code, rate }
    throw new Problem('rates-unavailable', `The rates of ${table.base} lack ${code}.`, { retryAfterS: 60 })
  })
  return { ...table, rates: needed }
}
