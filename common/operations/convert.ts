import * as v from 'valibot'
import type { Contract } from './contract.ts'
import { CurrencyCode, PositiveDecimal, RateDate, RateSource } from './rates.ts'

export const convert = {
  type: 'convert',
  summary: 'Convert an amount at the rate of the day',
  description:
    "An order at the day's rate. Its value in USD counts against the user's limit of the UTC day on which it was accepted. If it would exceed the limit it fails with `limit-exceeded` and counts nothing. The amount is rounded half-even to the currency's minor unit.",
  input: v.strictObject({ from: CurrencyCode, to: CurrencyCode, amount: PositiveDecimal }),
  output: v.object({ amount: v.string(), currency: v.string(), rate: v.string(), date: RateDate, source: RateSource }),
  failures: ['limit-exceeded'],
  rates: { base: 'from', quotes: ['to'], also: ['USD'] },
} as const satisfies Contract
