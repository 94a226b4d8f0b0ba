// Loaded before the code of a test file: when the process ends, it writes which mutants the process came by.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** What the code that Stryker writes counts in. Nothing runs between tests, so all of a file's counts are its own. */
const counts: Record<string, number> = {}
Object.assign(globalThis, { __stryker__: { mutantCoverage: { static: counts, perTest: {} } } })

process.on('exit', () => {
  const folder = process.env.MUTANT_COVERAGE
  if (folder) writeFileSync(join(folder, `${process.pid}.json`), JSON.stringify(counts))
})
