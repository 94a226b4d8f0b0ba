import { CurrencyCode, RateDate, type RateSource, RateTable } from '@posta/common/operations/rates.ts'
import * as v from 'valibot'
import { toPlainDecimal } from './plain-decimal.ts'

/** What the API answers for `usd`: `{"date": "2026-11-23", "usd": {"ars": 1472.5, …}}`. */
const Answer = v.looseObject({ date: RateDate })

// Real rates lie between 1e-16 and 1e16. The upper bound also refuses Infinity, which JSON's 1e999 becomes.
const Rates = v.record(v.string(), v.pipe(v.number(), v.minValue(1e-20), v.maxValue(1e20)))

/**
 * The table in an answer of the API, or why it cannot be used, in words for the log.
 *
 * One rate that is not a number, zero, negative or implausibly large or small makes the whole answer unusable: the other
 * rates cannot be trusted either. So does a base that is not worth exactly one of itself: it is another currency's table. An
 * entry whose name is not a lower-case currency code is left out, since nobody can ask for it.
 *
 * @param base in upper case
 */
export function readTable(
  base: string,
  source: v.InferOutput<typeof RateSource>,
  answer: unknown,
): { readonly table: RateTable } | { readonly unreadable: string } {
  const code = base.toLowerCase()
  const outer = v.safeParse(Answer, answer)
  if (!outer.success) return { unreadable: 'it is not an object with a date' }
  const rates = v.safeParse(Rates, outer.output[code])
  if (!rates.success) {
    const at = rates.issues[0].path?.[0]?.key
    return {
      unreadable:
        at === undefined ? 'it has no rates' : `its rate of ${String(at).slice(0, 10)} is no plausible number`,
    }
  }
  if ((rates.output[code] ?? 1) !== 1) return { unreadable: 'its base is not worth one of itself' }
  const table = v.safeParse(RateTable, {
    base,
    date: outer.output.date,
    source,
    rates: Object.entries(rates.output)
      .filter(([name]) => name === name.toLowerCase() && v.is(CurrencyCode, name))
      .map(([name, rate]) => ({ code: name, rate: toPlainDecimal(rate) })),
  })
  if (!table.success) return { unreadable: 'it has too many rates' }
  if (table.output.rates.length === 0) return { unreadable: 'it has no rates' }
  return { table: table.output }
}
