/** Exact decimals on whole numbers of any size, without the library that the services use. */
export interface Decimal {
  readonly digits: bigint
  /** How many of the digits are after the point. */
  readonly scale: number
}

/** Reads a number as JSON writes it, plain or in exponent form. @throws Error where it is no number of zero or more. */
export function decimal(text: string): Decimal {
  const [, whole, fraction = '', exponent = '0'] = /^(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/i.exec(text) ?? []
  if (whole === undefined) throw new Error(`${text} is no number of zero or more.`)
  const scale = fraction.length - Number(exponent)
  const digits = BigInt(whole + fraction)
  return scale >= 0 ? { digits, scale } : { digits: digits * 10n ** BigInt(-scale), scale: 0 }
}

export function times(a: Decimal, b: Decimal): Decimal {
  return { digits: a.digits * b.digits, scale: a.scale + b.scale }
}

export function isEqual(a: Decimal, b: Decimal): boolean {
  const scale = Math.max(a.scale, b.scale)
  return shifted(a, scale) === shifted(b, scale)
}

/** In units of 10^-scale, rounded up. */
export function roundedUp({ digits, scale }: Decimal, to: number): bigint {
  if (scale <= to) return shifted({ digits, scale }, to)
  const unit = 10n ** BigInt(scale - to)
  return (digits + unit - 1n) / unit
}

/** As text with `to` digits after the point, rounded half to even. */
export function roundedHalfEven({ digits, scale }: Decimal, to: number): string {
  if (scale <= to) return text(shifted({ digits, scale }, to), to)
  const unit = 10n ** BigInt(scale - to)
  const [quotient, rest] = [digits / unit, digits % unit]
  const up = 2n * rest > unit || (2n * rest === unit && quotient % 2n === 1n)
  return text(up ? quotient + 1n : quotient, to)
}

function shifted({ digits, scale }: Decimal, to: number): bigint {
  return digits * 10n ** BigInt(to - scale)
}

function text(units: bigint, scale: number): string {
  if (scale === 0) return String(units)
  const padded = String(units).padStart(scale + 1, '0')
  return `${padded.slice(0, -scale)}.${padded.slice(-scale)}`
}
