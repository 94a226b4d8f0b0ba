import { fakeRates } from '../../gateway/testing/fake-rates-api.ts'
import type { RatesByBase, Snapshot } from './snapshot.ts'

const BASES = ['USD', 'EUR']
const PACKAGE = '../../gateway/node_modules/@fawazahmed0/currency-api/v1/currencies'

/** The rates of the fake API that the run asked, and those of the snapshot that gateway brings. */
export async function expectedRates(): Promise<Snapshot['rates']> {
  const live: Record<string, RatesByBase[string]> = {}
  const bundled: Record<string, RatesByBase[string]> = {}
  for (const base of BASES) {
    const code = base.toLowerCase()
    live[base] = inUpperCase({ ...fakeRates, [code]: 1 })
    bundled[base] = inUpperCase((await Bun.file(new URL(`${PACKAGE}/${code}.json`, import.meta.url)).json())[code])
  }
  return { live, bundled }
}

function inUpperCase(table: Record<string, number>): Record<string, string> {
  return Object.fromEntries(Object.entries(table).map(([code, rate]) => [code.toUpperCase(), String(rate)]))
}
