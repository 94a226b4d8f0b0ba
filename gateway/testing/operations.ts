import type { RateTable } from '@posta/common/operations/rates.ts'
import type { Sources } from '../preparers/preparer.ts'

/** For tests: sources that stand still, and a conversion that they are enough for. */
export const usdTable: RateTable = {
  base: 'USD',
  date: '2026-11-23',
  source: 'live',
  rates: [{ code: 'ARS', rate: '1472.5' }],
}
export const fixedSources: Sources = { rates: { table: async () => usdTable } }
export const conversion = { type: 'convert', input: { from: 'USD', to: 'ARS', amount: '1' } }
