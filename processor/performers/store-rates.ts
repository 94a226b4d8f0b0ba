import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Performer } from '@posta/common/operations/contract.ts'

/** The table is stored with the result, like the rates of every operation. `GET /rates/{base}` serves the newest. */
export const storeRates: Performer<Catalog['store-rates']> = ({ input, rates }) => {
  if (rates.base !== input.base) throw new Error(`The rates are of ${rates.base}, not of ${input.base}.`)
  return { output: { base: rates.base, date: rates.date, currencies: rates.rates.length, source: rates.source } }
}
