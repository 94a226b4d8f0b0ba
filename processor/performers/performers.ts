import type { Catalog, OperationType } from '@posta/common/operations/catalog.ts'
import { convert } from './convert.ts'
import { payout } from './payout.ts'
import type { Performer } from './performer.ts'
import { storeRates } from './store-rates.ts'

export type Performers = { readonly [Type in OperationType]: Performer<Catalog[Type]> }

/** The performer of each operation of the catalog. A contract without one does not compile. */
export const performers: Performers = {
  convert, // example
  payout, // example
  'store-rates': storeRates, // example
}
