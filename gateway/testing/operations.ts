import type { RateTable } from '@posta/common/operations/rates.ts'
import type { Rates } from '../rates/rates.ts'

/** For tests: fixed rates, and a conversion that needs no others. */
export const usdTable: RateTable = {
  base: 'USD',
  date: '2026-11-23',
  source: 'live',
  rates: [{ code: 'ARS', rate: '1472.5' }],
}
export const fixedRates: Rates = { table: async () => usdTable }
export const conversion = { type: 'convert', input: { from: 'USD', to: 'ARS', amount: '1' } }
