import type { RateTable } from '@posta/common/operations/rates.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createHttp } from '@posta/common/service/external-http.ts'
import type { Sources } from '../preparers/preparer.ts'

/** For tests: sources that do not change, and a conversion that needs no others. */
export const usdTable: RateTable = {
  base: 'USD',
  date: '2026-11-23',
  source: 'live',
  rates: [{ code: 'ARS', rate: '1472.5' }],
}
export const fixedSources: Sources = { http: createHttp(systemDeps), rates: { table: async () => usdTable } }
export const conversion = { type: 'convert', input: { from: 'USD', to: 'ARS', amount: '1' } }
