import * as v from 'valibot'
import { HttpUrl } from '../service/config.ts'
import { defineContract } from './contract.ts'
import { dailyUsd } from './daily-usd.ts'
import { CurrencyCode, Decimal, PositiveDecimal, RateDate, RateSource, RateTable } from './rates.ts'

const Payee = v.pipe(
  v.string(),
  v.regex(/^[\x21-\x7e]{1,100}$/, 'must be 1 to 100 visible ASCII characters, without spaces'),
  v.metadata({
    description: 'The account that is paid, as the payout provider knows it: 1 to 100 visible ASCII characters.',
    examples: ['AR-0000003100010000000001'],
  }),
)

export const payout = defineContract({
  type: 'payout',
  summary: 'Pay an amount out in another currency',
  description:
    "Pays `amount` of `from` out to `payee` in `to`, at the day's rate. It counts against the same limit as `convert`, and counts nothing if it fails. Above `APPROVAL_ABOVE_USD` it waits until an operator other than its owner answers `approve`. It can be cancelled until the payment begins. `reference` is the provider's id of the payment.",
  input: v.strictObject({ from: CurrencyCode, to: CurrencyCode, amount: PositiveDecimal, payee: Payee }),
  output: v.object({
    /** What was paid, in `currency`. */
    amount: v.string(),
    currency: v.string(),
    rate: v.string(),
    date: RateDate,
    source: RateSource,
    reference: v.string(),
  }),
  failures: ['limit-exceeded', 'payee-refused', 'not-approved'],
  /** Of `from`: the rates for `to` and for USD. */
  facts: RateTable,
  limit: dailyUsd,
  steps: true,
  signals: {
    approve: {
      description: 'Whether the payout may be made. Asked for where it is worth more than `APPROVAL_ABOVE_USD`.',
      payload: v.strictObject({ approved: v.boolean() }),
      from: 'operator',
    },
  },
  settings: {
    /** Where the provider is. Its API: see `tools/provider.ts`. */
    PAYOUT_URL: v.optional(HttpUrl),
    APPROVAL_ABOVE_USD: v.optional(Decimal, '1000'),
  },
  requires: 'PAYOUT_URL',
})
