import { afterAll, beforeAll, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import { repositoryFiles } from '../../tools/new/repository-files.ts'
import { install, runIn } from '../testing/copy-repository.ts'
import { describeLong } from '../testing/parts.ts'

/** Words of the examples. Packages that others need have some of them in their names. */
const WORD =
  /\bconver(?:t|ts|sions?)\b(?!-source-map)|pay-?outs?|\brates?\b|currenc(?:y|ies)\b(?<!concurrency)|\b(?:EUR|USD|ARS)\b|\bprovider|store-?rates|chaos|daily.?limit/i
/** What marks the examples in files that stay. */
const MARK = /(?:\/\/|#|<!--) (?:example|instead)\b|without-examples|new\/instead/

describeLong('a new project without the examples', () => {
  const { path: folder, remove } = temporaryFolder()
  const project = join(folder, 'shop')
  let said: ReturnType<typeof runIn>

  const textOf = (path: string, root = project) => readFileSync(join(root, path), 'utf8')

  beforeAll(() => {
    said = runIn(REPOSITORY_ROOT, 'tools/new.ts', 'project', 'my-shop', project, '--without-examples')
    install(project)
  }, 60_000)
  afterAll(remove, 60_000)

  test('lacks their files and has two operations to begin with', () => {
    expect(said).toMatchObject({ code: 0, error: '' })
    const [here, there] = [REPOSITORY_ROOT, project].map((root) => repositoryFiles(root))
    const left = here?.filter((path) => !there?.includes(path) && !path.startsWith('tools/new/instead/')) ?? []
    expect(there?.filter((path) => !here?.includes(path))).toEqual([
      'common/operations/book.ts',
      'common/operations/echo.ts',
      'gateway/preparers/book.ts',
      'processor/performers/book.test.ts',
      'processor/performers/book.ts',
      'processor/performers/echo.test.ts',
      'processor/performers/echo.ts',
    ])
    const ofTheCore =
      /^(?:common\/(?!operations)|gateway\/(?!preparers|rates|testing)|processor\/(?!performers|rates)|monitor)/
    expect(left.filter((path) => ofTheCore.test(path))).toEqual(['common/messages/versions/1.json'])
    expect(left.filter((path) => /^tests\/(?!chaos)/.test(path))).toEqual([
      'tests/system/conversions.test.ts',
      'tests/system/external-api.test.ts',
      'tests/system/payout.test.ts',
      'tests/system/runs.test.ts',
      'tests/system/without-examples.test.ts',
    ])
  })

  test('has no word of theirs', () => {
    const lines = repositoryFiles(project).flatMap((path) =>
      textOf(path)
        .split('\n')
        .filter((line) => (path === 'bun.lock' ? /currency-|first-match/ : WORD).test(line) || MARK.test(line))
        .map((line) => `${path}: ${line}`),
    )
    expect(lines).toEqual([])
  })

  test('marks few lines of the files that stay here', () => {
    const marked = repositoryFiles(project).filter((path) => {
      const here = join(REPOSITORY_ROOT, path)
      return (
        /\.(?:ts|md|yml|example)$/.test(path) && Bun.file(here).size > 0 && MARK.test(textOf(path, REPOSITORY_ROOT))
      )
    })
    expect(marked.length).toBeLessThan(35)
  })

  test('passes all checks', () => {
    const { code, out, error } = runIn(project, 'run', 'check')
    expect({ code, out }, error).toMatchObject({ code: 0 })
  }, 120_000)

  test('shows in its demo that it works', () => {
    const { code, out, error } = runIn(project, 'tools/demo.ts', '--once')
    expect({ code, error }).toEqual({ code: 0, error: '' })
    expect(out).toContain('An operation is done: POST /operations, Prefer: wait=10\n    {"text":"hello"}\n')
    expect(out).toContain('Everything is as it should be.')
  }, 60_000)

  test('passes its tests, also with an operation more', () => {
    expect(runIn(project, 'tools/new.ts', 'operation', 'ship-order', '--facts', '--steps')).toMatchObject({ code: 0 })
    const { code, error } = runIn(project, 'test', '--parallel', '--no-isolate', '--timeout', '60000')
    const failures = error.split('\n').filter((line) => /^\(fail\)|^\w*[Ee]rror: /.test(line))
    expect({ code, failures }).toEqual({ code: 0, failures: [] })
    expect(Number(/(\d+) pass\n/.exec(error)?.[1])).toBeGreaterThan(1000)
  }, 600_000)

  test('makes no project without examples itself', () => {
    const { code, error } = runIn(project, 'tools/new.ts', 'project', 'x', join(folder, 'x'), '--without-examples')
    expect(code).toBe(1)
    expect(error).toStartWith("Unknown option '--without-examples'")
  })
})
