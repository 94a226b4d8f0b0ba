// What Stryker needs to know of this repository: how its tests run, and which code no test has to notice.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Checker, type CheckResult, CheckStatus } from '@stryker-mutator/api/check'
import type { NodePath } from '@stryker-mutator/api/ignore'
import { declareFactoryPlugin, declareValuePlugin, PluginKind } from '@stryker-mutator/api/plugin'
import {
  type CompleteDryRunResult,
  DryRunStatus,
  MutantRunStatus,
  type TestRunner,
  TestStatus,
} from '@stryker-mutator/api/test-runner'
import * as v from 'valibot'

/** What `bun run mutate` tells its plugins, which are loaded into other processes. */
export const EVERY = 'MUTATE_EVERY'

const TAKEN: CheckResult = { status: CheckStatus.Passed }
const LEFT_OUT: CheckResult = { status: CheckStatus.CompileError, reason: 'not in the sample' }
/** How often a test file came by each mutant. */
const Counts = v.record(v.string(), v.number())
const called = (callee: v.GenericSchema) => v.object({ type: v.literal('CallExpression'), callee })
const LogCall = called(v.object({ object: v.object({ name: v.literal('log') }) }))
/** A line that logs, or a part of it. */
const Logging = v.union([LogCall, v.object({ type: v.literal('ExpressionStatement'), expression: LogCall })])
/** What the OpenAPI documents say. */
const Describing = v.union([
  called(v.object({ property: v.object({ name: v.picklist(['metadata', 'description']) }) })),
  v.object({
    type: v.literal('ObjectProperty'),
    key: v.object({ name: v.picklist(['summary', 'description', 'answers', 'problems']) }),
  }),
])
/** The text of `described(schema, text)`. */
const DescribingText = v.object({
  node: v.object({ type: v.picklist(['StringLiteral', 'TemplateLiteral']) }),
  parent: called(v.object({ name: v.literal('described') })),
})
const ForPeople = v.union([v.object({ node: v.union([Logging, Describing]) }), DescribingText])

export const strykerPlugins = [
  declareFactoryPlugin(PluginKind.TestRunner, 'bun', bunTests),
  declareFactoryPlugin(PluginKind.Checker, 'sample', sample),
  declareValuePlugin(PluginKind.Ignore, 'for people', { shouldIgnore }),
]

/**
 * Runs a test file after the other, each in a process of its own, the quickest first, and stops at the first that fails. To
 * Stryker a file is one test: so a mutant meets only those that come by it.
 */
function bunTests(): TestRunner {
  const tookMs = new Map<string, number>()
  let current: Bun.Subprocess | undefined

  async function run(file: string, environment: Readonly<Record<string, string>>, options: readonly string[] = []) {
    const child = Bun.spawn([process.execPath, 'test', ...options, '--bail', file], {
      env: { ...process.env, TEST_ALL: undefined, ...environment },
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    })
    current = child
    const said = new Response(child.stderr).text()
    const code = await child.exited
    end()
    return { said: await said, code }
  }

  /** Ends what runs: a test that fails, or is cut off, may leave processes behind. They are of its group. */
  function end(): void {
    if (!current) return
    try {
      process.kill(-current.pid, 'SIGKILL')
    } catch {
      // None is left.
    }
    current = undefined
  }

  async function covered(file: string) {
    const folder = mkdtempSync(join(tmpdir(), 'mutants-'))
    const path = join(folder, 'coverage.json')
    try {
      const startedAtMs = performance.now()
      const { said, code } = await run(file, { MUTANT_COVERAGE: path }, ['--preload', './tools/mutate/coverage.ts'])
      tookMs.set(file, performance.now() - startedAtMs)
      const counts = code === 0 ? v.parse(Counts, await Bun.file(path).json()) : {}
      return { said, code, counts }
    } finally {
      rmSync(folder, { recursive: true })
    }
  }

  return {
    capabilities: () => ({ reloadEnvironment: true }),

    async dryRun({ testFiles = [] }) {
      const tests: CompleteDryRunResult['tests'] = []
      const perTest: Record<string, Record<string, number>> = {}
      for (const file of testFiles) {
        const { said, code, counts } = await covered(file)
        const test = { id: file, name: file, fileName: file, timeSpentMs: tookMs.get(file) ?? 0 }
        if (code === 0) tests.push({ ...test, status: TestStatus.Success })
        else tests.push({ ...test, status: TestStatus.Failed, failureMessage: said })
        perTest[file] = counts
      }
      return { status: DryRunStatus.Complete, tests, mutantCoverage: { static: {}, perTest } }
    },

    async mutantRun({ activeMutant, testFilter = [...tookMs.keys()] }) {
      const files = testFilter.toSorted((a, b) => (tookMs.get(a) ?? 0) - (tookMs.get(b) ?? 0))
      for (const [index, file] of files.entries()) {
        const { said, code } = await run(file, { __STRYKER_ACTIVE_MUTANT__: activeMutant.id })
        if (code !== 0)
          return { status: MutantRunStatus.Killed, killedBy: [file], failureMessage: said, nrOfTests: index + 1 }
      }
      return { status: MutantRunStatus.Survived, nrOfTests: files.length }
    },

    dispose: async () => end(),
  }
}

/** Leaves out all mutants but each nth. Stryker then does not count them. */
function sample(): Checker {
  const every = Number(process.env[EVERY] ?? 1)
  return {
    init: async () => {},
    check: async (mutants) =>
      Object.fromEntries(mutants.map(({ id }) => [id, Number(id) % every === 0 ? TAKEN : LEFT_OUT])),
  }
}

function shouldIgnore(path: NodePath): string | undefined {
  return v.is(ForPeople, path) ? 'it is for people' : undefined
}
