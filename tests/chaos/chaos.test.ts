import { expect, test } from 'bun:test'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { eventually } from '../../common/testing/eventually.ts'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import { describeLong } from '../testing/parts.ts'
import { runProgram } from '../testing/run-program.ts'
import { missingForRealParts } from './real-parts.ts'
import { missing, safeguards } from './safeguards.ts'

const Report = v.object({
  injected: v.record(v.string(), v.object({ injected: v.number(), missed: v.number() })),
  counts: v.object({ operations: v.number(), results: v.number() }),
  violations: v.array(v.object({ rule: v.string(), subject: v.string(), detail: v.string() })),
})

/** Runs `bun run chaos`. Resolves to its exit code and what it reports. */
async function chaos(...flags: readonly string[]) {
  using folder = temporaryFolder()
  const json = join(folder.path, 'report.json')
  const { code, error } = await runProgram(['tests/chaos/chaos.ts', ...flags, '--json', json], {
    environment: process.env,
  })
  if (!existsSync(json)) throw new Error(`The run gave no report: ${error}`)
  const { injected, counts, violations } = v.parse(Report, await Bun.file(json).json())
  return { code, counts, violations, kinds: Object.values(injected).filter((count) => count.injected > 0).length }
}

describeLong('a fault run', () => {
  test('on embedded parts breaks no promise', async () => {
    const { code, counts, violations, kinds } = await chaos('--parts', 'embedded', '--minutes', '1', '--seed', '7')
    expect(violations).toEqual([])
    expect(code).toBe(0)
    expect(counts.operations).toBeGreaterThan(50)
    expect(kinds).toBeGreaterThan(24)
  }, 240_000)

  const lacking = missingForRealParts()
  const skipped = lacking.length > 0 ? ` (skipped: it needs ${lacking.join(' and ')})` : ''
  test.skipIf(skipped !== '')(
    `on Kafka and FerretDB, through broken connections, breaks no promise${skipped}`,
    async () => {
      const { code, counts, violations, kinds } = await chaos('--parts', 'real', '--minutes', '2', '--seed', '7')
      expect(violations).toEqual([])
      expect(code).toBe(0)
      expect(counts.operations).toBeGreaterThan(50)
      expect(kinds).toBeGreaterThan(28)
    },
    400_000,
  )

  test.each(safeguards.map((name) => ({ name, ...missing[name] })))(
    'without $name finds that $what',
    async ({ name, rule }) => {
      const { code, violations } = await chaos('--minutes', '0.12', '--seed', '7', '--without', name)
      expect(violations.map((violation) => violation.rule)).toContain(rule)
      expect(code).toBe(1)
    },
    120_000,
  )

  test.skipIf(process.platform !== 'linux')(
    'that is killed leaves no process and no folder behind',
    async () => {
      const child = Bun.spawn([process.execPath, 'tests/chaos/chaos.ts', '--minutes', '1'], {
        cwd: REPOSITORY_ROOT,
        stdio: ['ignore', 'ignore', 'inherit'],
      })
      const services = () => descendantsOf(child.pid).filter((pid) => read(pid, 'cmdline').includes('service.child.ts'))
      await eventually(() => services().length === 6, 30_000)
      const left = descendantsOf(child.pid)
      const [service = 0] = services()
      const folder = /DATA_DIR=([^\0]+)/.exec(read(service, 'environ'))?.[1] ?? ''
      await eventually(() => existsSync(join(folder, 'gateway.db')), 30_000)
      // A stopped process must end, too.
      process.kill(service, 'SIGSTOP')
      child.kill('SIGKILL')
      await eventually(() => left.every((pid) => read(pid, 'cmdline') === ''), 30_000)
      await eventually(() => !existsSync(folder), 30_000)
    },
    60_000,
  )
})

function descendantsOf(pid: number): number[] {
  const children = readdirSync('/proc')
    .map(Number)
    .filter((each) => read(each, 'status').includes(`\nPPid:\t${pid}\n`))
  return children.flatMap((each) => [each, ...descendantsOf(each)])
}

/** What the kernel says of a process; empty where the process has ended. */
function read(pid: number, what: 'cmdline' | 'environ' | 'status'): string {
  try {
    return readFileSync(`/proc/${pid}/${what}`, 'utf8')
  } catch {
    return ''
  }
}
