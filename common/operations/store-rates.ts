import * as v from 'valibot'
import type { Contract } from './contract.ts'
import { CurrencyCode, RateDate, RateSource } from './rates.ts'

export const storeRates = {
  type: 'store-rates',
  summary: "Store the day's rate table of a currency",
  description:
    'Stores all rates of `base` that the external API returned; `currencies` is how many there are. Processor serves the newest table at `GET /rates/{base}`.',
  input: v.strictObject({ base: CurrencyCode }),
  output: v.object({
    base: v.string(),
    date: RateDate,
    currencies: v.pipe(v.number(), v.integer()),
    source: RateSource,
  }),
  failures: [],
  rates: { base: 'base', quotes: 'all' },
} as const satisfies Contract
