import * as v from 'valibot'

export const CurrencyCode = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9]{2,10}$/, 'must be a currency code such as USD'),
  v.toUpperCase(),
  v.metadata({ description: 'A currency code, in any case. Answers have it in upper case.', examples: ['USD'] }),
)

const DECIMAL = /^(?:0|[1-9]\d{0,17})(?:\.\d{1,8})?$/

/** A number in a string, so that no JSON parser rounds it: at most 18 digits before and 8 after the point. */
export const Decimal = v.pipe(
  v.string('must be a decimal number in a string, such as "100.50"'),
  v.maxLength(27, 'must have at most 18 digits before and 8 after the point'),
  v.regex(
    DECIMAL,
    'must be a positive decimal number such as "100.50": at most 18 digits before and 8 after the point, no exponent',
  ),
  v.metadata({ description: 'A decimal number in a string, never in exponent form.', examples: ['100.50'] }),
)

export const PositiveDecimal = v.pipe(
  Decimal,
  v.check((text) => /[1-9]/.test(text), 'must be more than zero'),
)

/** A decimal number above zero, with as many digits as the external API gave. */
const Rate = v.pipe(v.string(), v.maxLength(64), v.regex(/^\d+(?:\.\d+)?$/), v.regex(/[1-9]/))

/** Where rates came from: the public API, its mirror, an earlier answer that gateway kept, or the bundled snapshot. */
export const RateSource = v.picklist(['live', 'mirror', 'cache', 'bundled'])

export const RateDate = v.pipe(v.string(), v.isoDate())

/** What one unit of `base` was worth in other currencies on a day. */
export const RateTable = v.object({
  base: CurrencyCode,
  date: RateDate,
  source: RateSource,
  rates: v.pipe(v.array(v.object({ code: CurrencyCode, rate: Rate })), v.maxLength(1000)),
})
export type RateTable = v.InferOutput<typeof RateTable>
