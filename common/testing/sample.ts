import type { Catalog } from '../operations/catalog.ts'
import type { FactsOf, OutputOf } from '../operations/contract.ts'

// For tests of what treats all operations alike: an operation of the catalog, and one in steps. Such a test takes what it
// sends and expects from here, so that it holds whichever operations there are.

const facts: FactsOf<Catalog['convert']> & FactsOf<Catalog['payout']> = {
  base: 'USD',
  date: '2026-11-23',
  source: 'live',
  rates: [
    { code: 'ARS', rate: '1472.5' },
    { code: 'USD', rate: '1' },
  ],
}
const { date, source } = facts

/** It is decided at once, and always succeeds. */
export const sample = {
  type: 'convert',
  /** Its input in GraphQL, and the member of the output that tests ask for. */
  graphql: { input: 'ConvertInput', output: 'amount' },
  /** For each whole number above 0 another. */
  input: (n = 1) => ({ from: 'USD', to: 'ARS', amount: String(n) }),
  /** The `n` of such an input. */
  numberIn: ({ amount }: Readonly<Record<string, unknown>>) => Number(amount),
  /** Means the same as `input(1)`. */
  sameInput: { amount: '1', to: 'ars', from: 'usd' },
  /** Does not fit: this member is wrong. */
  wrong: { input: { from: 'USD', to: 'ARS', amount: 'no number' }, member: 'amount' },
  facts,
  /** What is answered to `input(n)` with these facts. */
  output: (n = 1): OutputOf<Catalog['convert']> => ({
    amount: (n * 1472.5).toFixed(2),
    currency: 'ARS',
    rate: '1472.5',
    date,
    source,
  }),
} as const

/** It goes on in steps. */
export const stepped = {
  type: 'payout',
  input: (n = 1) => ({ ...sample.input(n), payee: 'AR-1' }),
  output: (n = 1): OutputOf<Catalog['payout']> => ({ ...sample.output(n), reference: 'reference' }),
  facts,
} as const
