import { expect, test } from 'bun:test'
import { decimal, isEqual, roundedHalfEven, roundedUp, times } from './decimal.ts'

test('numbers in exponent form are the same as written out', () => {
  expect(isEqual(decimal('1.5e-9'), decimal('0.0000000015'))).toBe(true)
  expect(isEqual(decimal('3E2'), decimal('300.0'))).toBe(true)
  expect(isEqual(decimal('1'), decimal('1.00000001'))).toBe(false)
  expect(() => decimal('-1')).toThrow('no number')
})

test('halves are rounded to the even digit, everything else to the nearer', () => {
  const rounded = (text: string, digits: number) => roundedHalfEven(decimal(text), digits)
  expect(['0.125', '0.135', '0.1251', '0.1249'].map((text) => rounded(text, 2))).toEqual([
    '0.12',
    '0.14',
    '0.13',
    '0.12',
  ])
  expect([rounded('2.5', 0), rounded('3.5', 0), rounded('7', 3)]).toEqual(['2', '4', '7.000'])
})

test('products are exact, and rounding up never loses anything', () => {
  expect(roundedHalfEven(times(decimal('999999999999999999.99999999'), decimal('1472.5')), 10)).toBe(
    '1472499999999999999999.9999852750',
  )
  expect(roundedUp(decimal('0.000000001'), 8)).toBe(1n)
  expect(roundedUp(decimal('12.5'), 8)).toBe(1_250_000_000n)
})
