import type { Contract } from '@posta/common/operations/contract.ts'
import type { RateTable } from '@posta/common/operations/rates.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { Rates } from '../rates/rates.ts'

/**
 * The rates that an operation needs, by its contract: a whole table, or some of its rates.
 * @throws Problem `unknown-currency`, with a pointer to the member of the input, or `rates-unavailable`
 */
export async function requiredRates(
  rates: Rates,
  contract: Contract,
  input: Record<string, unknown>,
): Promise<RateTable> {
  const { base, quotes, also = [] } = contract.rates
  const codeOf = (member: string) => String(input[member])

  function unknownCurrency(member: string): Problem {
    const detail = `There are no rates for ${codeOf(member)}.`
    return new Problem('unknown-currency', detail, { errors: [{ pointer: `#/input/${member}`, detail }] })
  }

  const table = await rates.table(codeOf(base)).catch((error: unknown) => {
    throw error instanceof Problem && error.code === 'unknown-currency' ? unknownCurrency(base) : error
  })
  if (quotes === 'all') return table
  const byCode = new Map([[table.base, '1'], ...table.rates.map(({ code, rate }) => [code, rate] as const)])
  for (const member of quotes) if (!byCode.has(codeOf(member))) throw unknownCurrency(member)
  const required = new Set([...quotes.map(codeOf), ...also])
  return {
    ...table,
    rates: [...required].map((code) => {
      const rate = byCode.get(code)
      if (rate !== undefined) return { code, rate }
      throw new Problem('rates-unavailable', `The rates of ${table.base} lack ${code}.`, { retryAfterS: 60 })
    }),
  }
}
