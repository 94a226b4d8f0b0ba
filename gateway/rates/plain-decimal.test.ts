import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { toPlainDecimal } from './plain-decimal.ts'

const positive = fc.double({ min: 0, minExcluded: true, noNaN: true, noDefaultInfinity: true })

test.each([
  [1, '1'],
  [1472.5, '1472.5'],
  [0.1, '0.1'],
  [0.000001, '0.000001'],
  [1e-7, '0.0000001'],
  [1.402459e-16, '0.0000000000000001402459'],
  [7130333065696252, '7130333065696252'],
  [1e21, '1000000000000000000000'],
  [1.2345e25, '12345000000000000000000000'],
])('%p is written out as %p', (value, text) => {
  expect(toPlainDecimal(value)).toBe(text)
})

test('every positive number reads back as itself', () => {
  fc.assert(fc.property(positive, (value) => Number(toPlainDecimal(value)) === value))
})

test('no text has an exponent or a needless zero in front, and each has a digit before the point', () => {
  fc.assert(fc.property(positive, (value) => /^(?:0|[1-9]\d*)(?:\.\d+)?$/.test(toPlainDecimal(value))))
})

test('a text has no more digits than the shortest text of the number', () => {
  const significant = (text: string) => text.replace('.', '').replace(/^0+/, '').replace(/0+$/, '')
  fc.assert(
    fc.property(positive, (value) => {
      const [mantissa = ''] = String(value).split('e')
      return significant(toPlainDecimal(value)) === significant(mantissa)
    }),
  )
})

test.each([0, -0, -1.5, Number.NaN, Number.POSITIVE_INFINITY])('%p is refused', (value) => {
  expect(() => toPlainDecimal(value)).toThrow(RangeError)
})
