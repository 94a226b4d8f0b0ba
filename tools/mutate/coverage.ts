// Loaded before a test file: at its end it writes which mutants the file came by. Code in processes that it starts is not seen.
import { afterAll } from 'bun:test'
import { writeFileSync } from 'node:fs'

/** Code that Stryker has changed counts in it, by the mutant's id. */
const counts: Record<string, number> = {}
Object.assign(globalThis, { __stryker__: { mutantCoverage: { static: counts, perTest: {} } } })

afterAll(() => {
  if (process.env.MUTANT_COVERAGE) writeFileSync(process.env.MUTANT_COVERAGE, JSON.stringify(counts))
})
