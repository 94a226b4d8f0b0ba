import * as iso4217 from 'currency-codes'

/** Codes of ISO 4217 that are no money to pay with (metals, units of account, tests): it gives them no minor unit. */
const WITHOUT_MINOR_UNIT = new Set('XAG XAU XBA XBB XBC XBD XDR XPD XPT XSU XTS XUA XXX'.split(' '))

/** For what has no minor unit in ISO 4217, gold and bitcoin alike: as fine as amounts come in. */
const FINEST_DIGITS = 8

/** How many digits stand after the point in an amount of a currency: 2 for USD, 0 for JPY, 3 for KWD, 8 for BTC. */
export function minorUnitDigits(code: string): number {
  if (WITHOUT_MINOR_UNIT.has(code)) return FINEST_DIGITS
  return iso4217.code(code)?.digits ?? FINEST_DIGITS
}
