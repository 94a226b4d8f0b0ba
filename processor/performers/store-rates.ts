import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Performer } from './performer.ts'

/** The table is stored with the result, as its facts. `GET /rates/{base}` looks up the newest. */
export const storeRates: Performer<Catalog['store-rates']> = {
  decide({ input, facts: rates }) {
    const { base, date, source } = rates
    if (base !== input.base) throw new Error(`The rates are of ${base}, not of ${input.base}.`)
    return { output: { base, date, currencies: rates.rates.length, source }, lookup: { key: base, order: date } }
  },
}
