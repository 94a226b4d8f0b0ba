// 5. Performs the operation: a pure function. Next: gateway/operations/receive-results.ts
import type { Catalog } from '@posta/common/operations/catalog.ts'
import { dailyUsd } from '@posta/common/operations/daily-usd.ts'
import type { RateTable } from '@posta/common/operations/rates.ts'
import Big from 'big.js'
import { minorUnitDigits } from './minor-unit.ts'
import type { Performer } from './performer.ts'

const UNITS_PER_USD = new Big(10).pow(dailyUsd.digits)

/** An order at the day's rate, computed exactly. It fails if it would exceed the limit. */
export const convert: Performer<Catalog['convert']> = {
  decide({ input, facts: rates, limit }) {
    const { from, to, amount } = input
    if (rates.base !== from) throw new Error(`The rates are of ${rates.base}, not of ${from}.`)

    // Rounded up: else many small conversions could exceed the limit.
    const counts = new Big(amount).times(rateOf('USD', rates)).times(UNITS_PER_USD).round(0, Big.roundUp)
    if (counts.plus(limit.used).gt(limit.bound)) {
      const left = Math.max(0, limit.bound - limit.used)
      const message =
        `This conversion counts ${usd(counts, Big.roundUp)} USD; of the daily limit of ${usd(limit.bound, Big.roundDown)} USD, ` +
        `${usd(left, Big.roundDown)} USD are left for that day (UTC).`
      return { failure: { code: 'limit-exceeded', message } }
    }

    const rate = rateOf(to, rates)
    return {
      output: {
        amount: new Big(amount).times(rate).toFixed(minorUnitDigits(to), Big.roundHalfEven),
        currency: to,
        rate,
        date: rates.date,
        source: rates.source,
      },
      // Within the limit, which is far below 2^53: exact as a number.
      counts: counts.toNumber(),
    }
  },
}

function rateOf(code: string, { base, rates }: RateTable): string {
  if (code === base) return '1'
  const found = rates.find((each) => each.code === code)
  if (!found) throw new Error(`The rates of ${base} lack ${code}.`)
  return found.rate
}

function usd(units: Big | number, rounding: Big.RoundingMode): string {
  return new Big(units).div(UNITS_PER_USD).toFixed(2, rounding)
}
