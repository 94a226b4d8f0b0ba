import { describe, expect, test } from 'bun:test'
import type { Catalog } from '@posta/common/operations/catalog.ts'
import fc from 'fast-check'
import { convert } from './convert.ts'
import { minorUnitDigits } from './minor-unit.ts'
import type { Decidable } from './performer.ts'

type Asked = Decidable<Catalog['convert']>

/** Ten million USD, in 1e-8 USD. */
const LARGEST_BOUND = 10_000_000 * 1e8

function asked(
  [from, to, amount]: readonly [string, string, string],
  rates: Record<string, string>,
  limit = { used: 0, bound: LARGEST_BOUND },
): Asked {
  const table = Object.entries(rates).map(([code, rate]) => ({ code, rate }))
  return {
    id: 'op',
    user: 'ana',
    createdAt: '2026-11-23T12:00:00.000Z',
    input: { from, to, amount },
    facts: { base: from, date: '2026-11-23', source: 'live', rates: table },
    limit,
    settings: {},
  }
}

function amountOf(...[order, rates]: Parameters<typeof asked>): string {
  const outcome = convert.decide(asked(order, rates))
  if ('failure' in outcome) throw new Error(outcome.failure.message)
  return outcome.output.amount
}

/** A decimal as the exact fraction `units / 10 ** digits`: independent of the arithmetic under test. */
function fraction(decimal: string): { units: bigint; digits: number } {
  const [whole = '', part = ''] = decimal.split('.')
  return { units: BigInt(whole + part), digits: part.length }
}

function product(one: string, other: string) {
  const [a, b] = [fraction(one), fraction(other)]
  return { units: a.units * b.units, digits: a.digits + b.digits }
}

const digits = (min: number, max: number) =>
  fc.string({ unit: fc.constantFrom(...'0123456789'), minLength: min, maxLength: max })
const plain = (whole: string, part: string) => `${BigInt(whole || '0')}${part && `.${part}`}`
const positive = (text: string) => /[1-9]/.test(text)
const amounts = fc
  .tuple(digits(0, 18), digits(0, 8))
  .map(([whole, part]) => plain(whole, part))
  .filter(positive)
const rates = fc
  .tuple(digits(0, 12), digits(0, 40))
  .map(([whole, part]) => plain(whole, part))
  .filter(positive)
/** Amounts and rates whose product often ends exactly in a half. */
const halves = fc.tuple(fc.bigInt(0n, 10n ** 12n), fc.constantFrom('0.005', '0.015', '0.5', '0.00000005', '0.05'))
const codes = fc.constantFrom('ARS', 'JPY', 'KWD', 'CLF', 'BTC', 'XAU')

describe('the amount', () => {
  test('is amount × rate, rounded half-even to the minor unit, for every amount and rate', () => {
    const orders = fc.oneof(
      fc.tuple(amounts, rates),
      halves.filter(([amount]) => amount > 0n).map(([amount, rate]) => [String(amount), rate] as const),
    )
    fc.assert(
      fc.property(orders, codes, ([amount, rate], to) => {
        const places = minorUnitDigits(to)
        const shown = amountOf(['EUR', to, amount], { [to]: rate, USD: '0.000000000000000000000000000001' })
        // A plain decimal with as many digits as the currency has.
        expect(shown).toMatch(places === 0 ? /^(?:0|[1-9]\d*)$/ : new RegExp(`^(?:0|[1-9]\\d*)\\.\\d{${places}}$`))
        // |exact - shown| is at most half a minor unit; if it is exactly half, the last digit is even.
        const exact = product(amount, rate)
        const scale = 10n ** BigInt(exact.digits)
        const minor = 10n ** BigInt(places)
        const units = fraction(shown).units
        const twiceOff = 2n * (exact.units * minor - units * scale)
        const distance = twiceOff < 0n ? -twiceOff : twiceOff
        expect(distance <= scale).toBe(true)
        if (distance === scale) expect(units % 2n).toBe(0n)
      }),
      { numRuns: 2000 },
    )
  })

  test.each([
    ['2.5', 'JPY', '1', '2'],
    ['3.5', 'JPY', '1', '4'],
    ['0.125', 'ARS', '1', '0.12'],
    ['0.135', 'ARS', '1', '0.14'],
    ['0.1250000001', 'ARS', '1', '0.13'],
    ['100.50', 'ARS', '1472.5', '147986.25'],
    ['999999999999999999.99999999', 'ARS', '1000000000000', '999999999999999999999999990000.00'],
    ['0.00000001', 'ARS', '0.00000001', '0.00'],
    ['1', 'KWD', '0.3055', '0.306'],
    ['1', 'BTC', '0.0000105555555', '0.00001056'],
  ])('%s at %s %s is %s', (amount, to, rate, expected) => {
    // With this rate it counts almost nothing, so that the limit does not matter.
    const outcome = convert.decide(asked(['EUR', to, amount], { [to]: rate, USD: '0.00000000000000000001' }))
    expect(outcome).toMatchObject({
      output: { amount: expected, currency: to, rate, date: '2026-11-23', source: 'live' },
    })
  })

  test('from a currency to itself is the same amount, even if the table has no rate for it', () => {
    expect(amountOf(['USD', 'USD', '10.5'], {})).toBe('10.50')
    expect(amountOf(['ARS', 'ARS', '10.505'], { USD: '0.0007' })).toBe('10.50')
  })
})

describe('the daily limit', () => {
  test('counts every conversion in USD, rounded up to 1e-8', () => {
    fc.assert(
      fc.property(amounts, rates, (amount, usd) => {
        const outcome = convert.decide(asked(['EUR', 'ARS', amount], { ARS: '1', USD: usd }))
        const exact = product(amount, usd)
        const scale = 10n ** BigInt(exact.digits)
        const roundedUp = (exact.units * 10n ** 8n + scale - 1n) / scale
        const within = roundedUp <= BigInt(LARGEST_BOUND)
        expect('failure' in outcome).toBe(!within)
        if (within) expect(outcome).toMatchObject({ counts: Number(roundedUp) })
      }),
      { numRuns: 2000 },
    )
  })

  test('is never exceeded by any sequence, and refuses nothing that fits', () => {
    const orders = fc.array(fc.tuple(fc.constantFrom('1', '3', '0.3333333', '12.5', '99.99999999'), rates), {
      maxLength: 40,
    })
    fc.assert(
      fc.property(orders, fc.integer({ min: 1, max: 2e10 }), (sequence, bound) => {
        let used = 0
        for (const [amount, usd] of sequence) {
          const outcome = convert.decide(asked(['EUR', 'ARS', amount], { ARS: '1', USD: usd }, { used, bound }))
          const exact = product(amount, usd)
          const left = BigInt(bound - used) * 10n ** BigInt(exact.digits)
          expect('failure' in outcome).toBe(exact.units * 10n ** 8n > left)
          if ('output' in outcome) used += outcome.counts ?? 0
          expect(used).toBeLessThanOrEqual(bound)
        }
      }),
    )
  })

  test('can be used up to the last 1e-8 USD', () => {
    const limit = { bound: 10_000 * 1e8, used: 9_999 * 1e8 }
    expect(convert.decide(asked(['USD', 'ARS', '1'], { ARS: '1' }, limit))).toMatchObject({ counts: 1e8 })
    expect(convert.decide(asked(['USD', 'ARS', '1.00000001'], { ARS: '1' }, limit))).toHaveProperty(
      'failure.code',
      'limit-exceeded',
    )
  })

  test('if exceeded, says what the conversion counts, the limit, and what is left of it', () => {
    const limit = { bound: 10_000 * 1e8, used: 9_899.509 * 1e8 }
    expect(convert.decide(asked(['EUR', 'ARS', '100'], { ARS: '1', USD: '1.1' }, limit))).toEqual({
      failure: {
        code: 'limit-exceeded',
        message:
          'This conversion counts 110.00 USD; of the daily limit of 10000.00 USD, 100.49 USD are left for that day (UTC).',
      },
    })
    const lowered = { bound: 1e8, used: 5e8 }
    expect(convert.decide(asked(['USD', 'ARS', '1'], { ARS: '1' }, lowered))).toHaveProperty(
      'failure.message',
      expect.stringContaining('0.00 USD are left'),
    )
  })

  test('is also exceeded by an amount that is larger than any exact number', () => {
    const outcome = convert.decide(asked(['USD', 'ARS', '999999999999999999.99999999'], { ARS: '1' }))
    expect(outcome).toHaveProperty('failure.message', expect.stringContaining('counts 1000000000000000000.00 USD'))
  })
})

test('if the rates lack a currency it throws: the message is wrong, and there is no outcome', () => {
  expect(() => convert.decide(asked(['EUR', 'ARS', '1'], { USD: '1' }))).toThrow('The rates of EUR lack ARS.')
  expect(() => convert.decide(asked(['EUR', 'ARS', '1'], { ARS: '1' }))).toThrow('The rates of EUR lack USD.')
  const foreign = asked(['EUR', 'ARS', '1'], { USD: '1', ARS: '1' })
  expect(() => convert.decide({ ...foreign, facts: { ...foreign.facts, base: 'GBP' } })).toThrow(
    'The rates are of GBP, not of EUR.',
  )
})

test.each([
  ['USD', 2],
  ['ARS', 2],
  ['JPY', 0],
  ['XOF', 0],
  ['KWD', 3],
  ['CLF', 4],
  ['BTC', 8],
  ['XAU', 8],
  ['XDR', 8],
])('%s has %i digits after the point', (code, expected) => {
  expect(minorUnitDigits(code)).toBe(expected)
})
