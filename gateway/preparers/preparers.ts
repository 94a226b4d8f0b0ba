import type { Catalog, OperationType } from '@posta/common/operations/catalog.ts'
import type { FactsOf } from '@posta/common/operations/contract.ts'
import { convert } from './convert.ts'
import { payout } from './payout.ts'
import type { Preparer } from './preparer.ts'
import { storeRates } from './store-rates.ts'

type TypeWithFacts = {
  [Type in OperationType]: FactsOf<Catalog[Type]> extends undefined ? never : Type
}[OperationType]

/** What prepares each operation of the catalog that has facts. A contract with facts and no preparer does not compile. */
export const preparers: { readonly [Type in TypeWithFacts]: Preparer<Catalog[Type]> } = {
  convert, // example
  payout, // example
  'store-rates': storeRates, // example
}
