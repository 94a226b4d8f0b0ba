import { dailyUsd } from '@posta/common/operations/daily-usd.ts'
import type { RateTable } from '@posta/common/operations/rates.ts'
import Big from 'big.js'
import { minorUnitDigits } from './minor-unit.ts'
import type { LimitState } from './performer.ts'

const UNITS_PER_USD = new Big(10).pow(dailyUsd.digits)

interface AskedOrder {
  readonly input: { readonly from: string; readonly to: string; readonly amount: string }
  readonly facts: RateTable
  readonly limit: LimitState
}

interface Order {
  /** In `to`: `amount × rate`, rounded half-even to the minor unit. */
  readonly amount: string
  readonly rate: string
  /** Its value in USD, rounded up, in the units of the daily limit. */
  readonly counts: number
}

/**
 * What an order comes to at the day's rate, computed exactly; a failure if it would exceed the daily limit.
 * @param noun what the failure's message calls it
 * @throws Error if the rates lack one that is needed
 */
export function orderAtRate(
  noun: string,
  { input: { from, to, amount }, facts: rates, limit }: AskedOrder,
): { readonly order: Order } | { readonly failure: { readonly code: 'limit-exceeded'; readonly message: string } } {
  if (rates.base !== from) throw new Error(`The rates are of ${rates.base}, not of ${from}.`)

  // Rounded up: else many small orders could exceed the limit.
  const counts = new Big(amount).times(rateOf('USD', rates)).times(UNITS_PER_USD).round(0, Big.roundUp)
  if (counts.plus(limit.used).gt(limit.bound)) {
    const left = Math.max(0, limit.bound - limit.used)
    const message =
      `This ${noun} counts ${usd(counts, Big.roundUp)} USD; of the daily limit of ${usd(limit.bound, Big.roundDown)} USD, ` +
      `${usd(left, Big.roundDown)} USD are left for that day (UTC).`
    return { failure: { code: 'limit-exceeded', message } }
  }

  const rate = rateOf(to, rates)
  return {
    order: {
      amount: new Big(amount).times(rate).toFixed(minorUnitDigits(to), Big.roundHalfEven),
      rate,
      // Within the limit, which is far below 2^53: exact as a number.
      counts: counts.toNumber(),
    },
  }
}

/** Whether units of the daily limit are worth more than an amount of USD. */
export function isAbove(units: number, amountUsd: string): boolean {
  return new Big(units).gt(new Big(amountUsd).times(UNITS_PER_USD))
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
