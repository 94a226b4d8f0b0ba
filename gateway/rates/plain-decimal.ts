/**
 * The shortest decimal text that reads back as `value`, without an exponent: 1e-7 becomes '0.0000001'. It is made from
 * JavaScript's own text of the number, without arithmetic, so no digit is invented.
 * @throws RangeError unless `value` is finite and more than zero
 */
export function toPlainDecimal(value: number): string {
  if (!Number.isFinite(value) || value <= 0) throw new RangeError('Only a positive number has a plain decimal.')
  const [mantissa = '', exponent] = String(value).split('e')
  if (exponent === undefined) return mantissa
  const [whole = '', fraction = ''] = mantissa.split('.')
  const digits = whole + fraction
  const pointAt = whole.length + Number(exponent)
  // JavaScript writes an exponent below 1e-6, where the point comes before all digits, and from 1e21 on, where it comes
  // after all of the at most 17 digits.
  return pointAt <= 0 ? `0.${'0'.repeat(-pointAt)}${digits}` : digits.padEnd(pointAt, '0')
}
