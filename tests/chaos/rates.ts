import { fakeRates } from '../../gateway/testing/fake-rates-api.ts'
import type { RatesByBase, Snapshot } from './snapshot.ts'

const BASES = ['USD', 'EUR']
const PACKAGE = '../../gateway/node_modules/@fawazahmed0/currency-api/v1/currencies'

/** What one unit of each base is worth, by the fake API that the run asked and by the snapshot that gateway brings. */
export async function expectedRates(): Promise<Snapshot['rates']> {
  const live: Record<string, Record<string, string>> = {}
  const bundled: Record<string, Record<string, string>> = {}
  for (const base of BASES) {
    const code = base.toLowerCase()
    live[base] = inUpperCase({ ...fakeRates, [code]: 1 })
    const table = await Bun.file(new URL(`${PACKAGE}/${code}.json`, import.meta.url)).json()
    bundled[base] = inUpperCase(table[code])
  }
  return { live, bundled } satisfies Record<string, RatesByBase>
}

function inUpperCase(table: Record<string, number>): Record<string, string> {
  return Object.fromEntries(Object.entries(table).map(([code, rate]) => [code.toUpperCase(), String(rate)]))
}
