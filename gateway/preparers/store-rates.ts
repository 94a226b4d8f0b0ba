import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Preparer } from './preparer.ts'
import { ratesOf } from './rates-of.ts'

/** The whole table, which is what the operation stores. */
export const storeRates: Preparer<Catalog['store-rates']> = ({ input }, { rates }) => ratesOf('base', input.base, rates)
