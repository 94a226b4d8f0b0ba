import { expect, test } from 'bun:test'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { describeLong } from '../system/system.ts'
import { missingForRealParts } from './real-parts.ts'
import { missing, safeguards } from './safeguards.ts'

const Report = v.object({
  injected: v.record(v.string(), v.object({ injected: v.number(), missed: v.number() })),
  counts: v.object({ operations: v.number(), results: v.number() }),
  violations: v.array(v.object({ rule: v.string(), subject: v.string(), detail: v.string() })),
})

/** What `bun run chaos` found, as it says to programs. */
async function chaos(...flags: readonly string[]): Promise<{ code: number; report: v.InferOutput<typeof Report> }> {
  const folder = mkdtempSync(join(tmpdir(), 'posta-test-'))
  try {
    const json = join(folder, 'report.json')
    const child = Bun.spawn([process.execPath, 'tests/chaos/chaos.ts', ...flags, '--json', json], {
      cwd: REPOSITORY_ROOT,
      stdio: ['ignore', 'ignore', 'inherit'],
    })
    const code = await child.exited
    return { code, report: v.parse(Report, await Bun.file(json).json()) }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

describeLong('a fault run', () => {
  test('on embedded parts breaks no promise', async () => {
    const { code, report } = await chaos('--parts', 'embedded', '--minutes', '1', '--seed', '7')
    expect(report.violations).toEqual([])
    expect(code).toBe(0)
    expect(report.counts.operations).toBeGreaterThan(50)
    expect(kindsInjected(report)).toBeGreaterThan(18)
  }, 240_000)

  test.skipIf(missingForRealParts().length > 0)(
    'on Kafka and FerretDB, through broken connections, breaks no promise',
    async () => {
      const { code, report } = await chaos('--parts', 'real', '--minutes', '2', '--seed', '7')
      expect(report.violations).toEqual([])
      expect(code).toBe(0)
      expect(report.counts.operations).toBeGreaterThan(50)
      expect(kindsInjected(report)).toBeGreaterThan(22)
    },
    400_000,
  )

  test.each(safeguards.map((name) => ({ name, ...missing[name] })))(
    'finds it where $what: without $name',
    async ({ name, rule }) => {
      const { code, report } = await chaos('--parts', 'embedded', '--minutes', '0.12', '--seed', '7', '--without', name)
      expect(new Set(report.violations.map((violation) => violation.rule))).toContain(rule)
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
      const services = () => descendantsOf(child.pid).filter((pid) => commandOf(pid).includes('chaos/service.ts'))
      while (services().length < 6) await Bun.sleep(50)
      const left = descendantsOf(child.pid)
      const [service = 0] = services()
      const folder = /DATA_DIR=([^\0]+)/.exec(readFileSync(`/proc/${service}/environ`, 'utf8'))?.[1] ?? ''
      const database = join(folder, 'gateway.db')
      while (!existsSync(database)) await Bun.sleep(50)
      // One that is stopped must go, too.
      process.kill(service, 'SIGSTOP')
      child.kill('SIGKILL')
      while (left.some((pid) => commandOf(pid) !== '')) await Bun.sleep(50)
      while (existsSync(folder)) await Bun.sleep(50)
    },
    60_000,
  )
})

function kindsInjected({ injected }: v.InferOutput<typeof Report>): number {
  return Object.values(injected).filter((count) => count.injected > 0).length
}

function descendantsOf(pid: number): number[] {
  const children = readdirSync('/proc').filter((name) => /^\d+$/.test(name) && parentOf(Number(name)) === pid)
  return children.flatMap((name) => [Number(name), ...descendantsOf(Number(name))])
}

function parentOf(pid: number): number | undefined {
  const status = readOrNothing(`/proc/${pid}/status`)
  const parent = /^PPid:\s+(\d+)$/m.exec(status)?.[1]
  return parent === undefined ? undefined : Number(parent)
}

/** Empty where there is no such process any more. */
function commandOf(pid: number): string {
  return readOrNothing(`/proc/${pid}/cmdline`)
}

function readOrNothing(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
