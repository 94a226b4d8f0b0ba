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

export function unknownCurrency(member: string, code: string): Problem {
  const detail = `There are no rates for ${code}.`
  return new Problem('unknown-currency', detail, { errors: [{ pointer: `#/input/${member}`, detail }] })
}
