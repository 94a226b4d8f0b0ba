// `bun run verify`: runs the checks, starts the real parts, runs every test on embedded and on real parts, and counts.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { NAME } from '../common/name.ts'
import { REPOSITORY_ROOT } from '../common/service/config.ts'
import { startParts } from './infra/parts.ts'

async function run(what: string, args: readonly string[], environment: Record<string, string> = {}): Promise<boolean> {
  console.log(`\n== ${what}`)
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: REPOSITORY_ROOT,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  return (await child.exited) === 0
}

/** The counts in a report of `bun test` in JUnit's format. */
async function readCounts(path: string): Promise<{ passed: number; failed: number; skipped: number }> {
  const [head = ''] = /<testsuites\b[^>]*>/.exec(await Bun.file(path).text()) ?? []
  const count = (name: string) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(head)?.[1] ?? 0)
  const failed = count('failures') + count('errors')
  return { passed: count('tests') - failed - count('skipped'), failed, skipped: count('skipped') }
}

const checked = await run('Format, lint, types, unused', ['run', 'check'])

console.log('\n== Real parts')
const parts = await startParts({ temporary: true })
for (const missing of parts.missing) console.log(`missing: ${missing}`)
if (parts.missing.length > 0) console.log('The suites that need these are skipped.')

const folder = mkdtempSync(join(tmpdir(), `${NAME}-verify-`))
const report = join(folder, 'junit.xml')
try {
  const tested = await run(
    'Every test',
    ['test', '--timeout=30000', '--reporter=junit', `--reporter-outfile=${report}`],
    {
      TEST_ALL: '1',
      ...(parts.brokerUrl !== undefined && { TEST_BROKER_URL: parts.brokerUrl }),
      ...(parts.mongoUrl !== undefined && { TEST_MONGO_URL: parts.mongoUrl }),
    },
  )
  const { passed, failed, skipped } = await readCounts(report)
  const faults = [
    !checked && 'The check failed; see above.',
    process.env.CI === 'true' &&
      parts.missing.length > 0 &&
      'CI must run on the real parts; see above what is missing.',
    // A run that breaks off before it writes its report must not count as one without failures.
    !tested && failed === 0 && 'The tests did not run to their end; see above.',
  ].filter((fault) => fault !== false)
  for (const fault of faults) console.log(`\n${fault}`)
  console.log(`\n${passed} passed, ${failed + faults.length} failed, ${skipped} skipped`)
  process.exitCode = failed + faults.length === 0 ? 0 : 1
} finally {
  await parts.stop()
  rmSync(folder, { recursive: true, force: true })
}
