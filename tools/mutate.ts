// `bun run mutate PATH` changes the code of a file or folder in one place after the other, and tells which changes no test noticed.
import { existsSync, statSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { Stryker } from '@stryker-mutator/core'
import { asCommand, CommandError } from '../common/service/command.ts'
import { REPOSITORY_ROOT } from '../common/service/config.ts'
import { EVERY } from './mutate/plugins.ts'

type Mutant = Awaited<ReturnType<Stryker['runMutationTest']>>[number]

/** Tests, and the drivers whose tests would not run. */
const NOT_CHANGED = [
  ...['!**/*.test.ts', '!**/*.suite.ts', '!**/*.child.ts', '!**/testing/**'],
  ...(process.env.TEST_MONGO_URL ? [] : ['!**/mongo.ts']),
]

const USAGE = `bun run mutate PATH [--tests PATH]... [--every N]

Changes the code of PATH, a folder or a file such as processor/runs, in one place after the other (a + becomes a -, a condition
is always true, a block is empty), in a copy of the repository. Each change meets the test files that run the changed code.
A change that none of them notices shows what is not tested. Left out are what is logged, what the OpenAPI documents say, and,
without TEST_MONGO_URL, the drivers on MongoDB.
  --tests PATH  takes the test files of this folder, or this file, too. Those of PATH's folder always are.
  --every N     makes each Nth change alone: a quick look at a large folder`

await asCommand(async () => {
  const { path, tests, every } = read(process.argv.slice(2))
  process.chdir(REPOSITORY_ROOT)
  process.env[EVERY] = every
  const results = await new Stryker({
    mutate: [...(isFolder(path) ? [`${path}/**/*.ts`] : [path]), ...NOT_CHANGED],
    testFiles: [isFolder(path) ? path : dirname(path), ...tests].map((at) =>
      isFolder(at) ? `${at}/**/*.test.ts` : at,
    ),
    testRunner: 'bun',
    checkers: ['sample'],
    ignorers: ['for people'],
    plugins: [join(import.meta.dir, 'mutate/plugins.ts')],
    coverageAnalysis: 'perTest',
    // Many tests are about time.
    concurrency: 1,
    timeoutMS: 15_000,
    timeoutFactor: 2,
    dryRunTimeoutMinutes: 15,
    tempDirName: '.mutate',
    cleanTempDir: 'always',
    // The links between the packages of the copy lead into the copy.
    symlinkNodeModules: false,
    buildCommand: 'bun install --frozen-lockfile',
    // Stryker cannot read it with this version of TypeScript. Nothing here needs it.
    tsconfigFile: 'none',
    reporters: ['progress-append-only'],
    thresholds: { high: 85, low: 85, break: null },
  }).runMutationTest()
  const met = results.filter(({ status }) => status !== 'Ignored' && status !== 'CompileError')
  if (met.length === 0) throw new CommandError(`Nothing in ${path} can be changed.`)
  const unnoticed = met.filter(({ status }) => status === 'Survived' || status === 'NoCoverage')
  for (const mutant of unnoticed) console.log(await shown(mutant))
  const share = (100 * (met.length - unnoticed.length)) / met.length
  console.log(`${met.length} changes, ${unnoticed.length} of them not noticed: ${share.toFixed(1)} % noticed`)
})

/** @throws CommandError for what is no such command */
function read(args: string[]): { path: string; tests: readonly string[]; every: string } {
  const { values, positionals } = parse(args)
  const [path, ...more] = positionals
  if (path === undefined) throw mistake('PATH is missing.')
  if (more.length > 0) throw mistake(`One PATH at a time: ${more.join(' ')} is too much.`)
  const { tests = [], every = '1' } = values
  if (!/^[1-9]\d*$/.test(every)) throw mistake('--every takes a whole number from 1.')
  const paths = [path, ...tests].map((at) => relative(REPOSITORY_ROOT, resolve(at)))
  for (const at of paths) if (!existsSync(join(REPOSITORY_ROOT, at))) throw mistake(`There is no ${at}.`)
  const [first = path, ...others] = paths
  return { path: first, tests: others, every }
}

function parse(args: string[]) {
  try {
    return parseArgs({
      args,
      allowPositionals: true,
      options: { tests: { type: 'string', multiple: true }, every: { type: 'string' } },
    })
  } catch (error) {
    throw mistake(error instanceof Error ? error.message : String(error))
  }
}

function mistake(what: string): CommandError {
  return new CommandError(`${what}\n\n${USAGE}`)
}

function isFolder(path: string): boolean {
  return statSync(path).isDirectory()
}

/** The place of a change, and what it is. */
async function shown({ fileName, location: { start, end }, replacement = '', status }: Mutant): Promise<string> {
  const lines = (await Bun.file(fileName).text()).split('\n').slice(start.line - 1, end.line)
  const [first = ''] = lines
  const was = lines.length > 1 ? `${first.slice(start.column - 1)} …` : first.slice(start.column - 1, end.column - 1)
  const [becomes = '', ...rest] = replacement.split('\n')
  const place = `${relative(REPOSITORY_ROOT, fileName)}:${start.line}`
  return `${place}  ${was}  ->  ${becomes}${rest.length > 0 ? ' …' : ''}${status === 'NoCoverage' ? '  (not run)' : ''}`
}
