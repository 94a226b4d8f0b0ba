import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Preparer } from './preparer.ts'
import { ratesForOrder } from './rates-of.ts'

/** The rates that its decision depends on, and no others. */
export const convert: Preparer<Catalog['convert']> = ({ input }, { rates }) => ratesForOrder(input, rates)
