import type { RateTable } from '@posta/common/operations/rates.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { Rates } from '../rates/rates.ts'

/**
 * The rates of the currency in a member of the input.
 * @throws Problem `unknown-currency`, with a pointer to the member, or `rates-unavailable`
 */
export async function ratesOf(member: string, code: string, rates: Rates): Promise<RateTable> {
  return rates.table(code).catch((error: unknown) => {
    throw error instanceof Problem && error.code === 'unknown-currency' ? unknownCurrency(member, code) : error
  })
}

/**
 * The rates of `from` that an order needs: for `to`, and for USD, in which its limit is.
 * @throws Problem `unknown-currency`, with a pointer to the member, or `rates-unavailable`
 */
export async function ratesForOrder({ from, to }: { from: string; to: string }, rates: Rates): Promise<RateTable> {
  const table = await ratesOf('from', from, rates)
  const byCode = new Map([[table.base, '1'], ...table.rates.map(({ code, rate }) => [code, rate] as const)])
  if (!byCode.has(to)) throw unknownCurrency('to', to)
  const needed = [...new Set([to, 'USD'])].map((code) => {
    const rate = byCode.get(code)
    if (rate !== undefined) return { code, rate }
    throw new Problem('rates-unavailable', `The rates of ${table.base} lack ${code}.`, { retryAfterS: 60 })
  })
  return { ...table, rates: needed }
}

function unknownCurrency(member: string, code: string): Problem {
  const detail = `There are no rates for ${code}.`
  return new Problem('unknown-currency', detail, { errors: [{ pointer: `#/input/${member}`, detail }] })
}
