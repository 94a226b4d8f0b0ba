import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Preparer } from './preparer.ts'
import { ratesForOrder } from './rates-of.ts'

/** The same rates as a conversion needs. */
export const payout: Preparer<Catalog['payout']> = ({ input }, { rates }) => ratesForOrder(input, rates)
