import * as iso4217 from 'currency-codes'

/** Codes of ISO 4217 without a minor unit: metals, units of account, tests. */
const WITHOUT_MINOR_UNIT = new Set('XAG XAU XBA XBB XBC XBD XDR XPD XPT XSU XTS XUA XXX'.split(' '))

/** For what has no minor unit in ISO 4217, such as gold or bitcoin: as many as amounts may have. */
const FINEST_DIGITS = 8

/** How many digits an amount of a currency has after the point: 2 for USD, 0 for JPY, 3 for KWD, 8 for BTC. */
export function minorUnitDigits(code: string): number {
  if (WITHOUT_MINOR_UNIT.has(code)) return FINEST_DIGITS
  return iso4217.code(code)?.digits ?? FINEST_DIGITS
}
