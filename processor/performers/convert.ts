// 5. Performs the operation: a pure function. Next: gateway/operations/receive-results.ts
import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Performer } from '@posta/common/operations/contract.ts'
import type { RateTable } from '@posta/common/operations/rates.ts'
import Big from 'big.js'
import { minorUnitDigits } from './minor-unit.ts'

/** An order at the day's rate, computed exactly. It fails if it would exceed the limit. */
export const convert: Performer<Catalog['convert']> = ({ input, rates, countedUsdE8, dailyLimitUsdE8 }) => {
  const { from, to, amount } = input
  if (rates.base !== from) throw new Error(`The rates are of ${rates.base}, not of ${from}.`)

  // Rounded up: else many small conversions could exceed the limit.
  const countsUsdE8 = new Big(amount).times(rateOf('USD', rates)).times(1e8).round(0, Big.roundUp)
  if (countsUsdE8.plus(countedUsdE8).gt(dailyLimitUsdE8)) {
    const left = Math.max(0, dailyLimitUsdE8 - countedUsdE8)
    const message =
      `This conversion counts ${usd(countsUsdE8, Big.roundUp)} USD; of the daily limit of ${usd(dailyLimitUsdE8, Big.roundDown)} USD, ` +
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
    countsUsdE8: countsUsdE8.toNumber(),
  }
}

function rateOf(code: string, { base, rates }: RateTable): string {
  if (code === base) return '1'
  const found = rates.find((each) => each.code === code)
  if (!found) throw new Error(`The rates of ${base} lack ${code}.`)
  return found.rate
}

function usd(amountE8: Big | number, rounding: Big.RoundingMode): string {
  return new Big(amountE8).times('1e-8').toFixed(2, rounding)
}
