import type { Catalog } from '../operations/catalog.ts'
import type { OutputOf } from '../operations/contract.ts'

// For tests of what treats all operations alike: an operation of the catalog, and one in steps. Such a test takes what it
// sends and expects from here, so that it holds whichever operations there are.

/** It is decided at once, and always succeeds. */
export const sample = {
  type: 'echo',
  /** Its input in GraphQL, and the member of the output that tests ask for. */
  graphql: { input: 'EchoInput', output: 'text' },
  /** For each whole number above 0 another. */
  input: (n = 1) => ({ text: String(n) }),
  /** The `n` of such an input. */
  numberIn: ({ text }: Readonly<Record<string, unknown>>) => Number(text),
  /** Means the same as `input(1)`. */
  sameInput: { text: '1' },
  /** Does not fit: this member is wrong. */
  wrong: { input: { text: '' }, member: 'text' },
  facts: undefined,
  /** What is answered to `input(n)` with these facts. */
  output: (n = 1): OutputOf<Catalog['echo']> => ({ text: String(n) }),
} as const

/** It goes on in steps. */
export const stepped = {
  type: 'book',
  input: (n = 1) => ({ text: String(n) }),
  output: (n = 1): OutputOf<Catalog['book']> => ({ text: String(n), reference: 'reference' }),
  facts: { now: '2026-11-23T12:00:00.000Z' },
} as const
