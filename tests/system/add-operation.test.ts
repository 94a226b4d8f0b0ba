import { afterAll, beforeAll, expect, test } from 'bun:test'
import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { copyRepository, digestOf, runIn } from '../testing/copy-repository.ts'
import { describeLong } from '../testing/parts.ts'

/** The files that a section of a document shows, by their path, which is the first line of each. */
async function filesOf(document: string, section: string): Promise<ReadonlyMap<string, string>> {
  const text = await Bun.file(join(REPOSITORY_ROOT, document)).text()
  const shown = text.split(`\n## ${section}\n`)[1]?.split('\n## ')[0] ?? ''
  const blocks = [...shown.matchAll(/```ts\n\/\/ (\S+)\n([\s\S]*?)```/g)]
  return new Map(blocks.map(([, path = '', content = '']) => [path, content]))
}

const LISTS = ['common/operations/catalog.ts', 'processor/performers/performers.ts']

describeLong('an operation that is added as the documents say', () => {
  let copy: string

  beforeAll(async () => {
    copy = copyRepository()
    for (const [path, text] of await filesOf('README.md', 'Add an operation')) await Bun.write(join(copy, path), text)
    for (const list of LISTS) await addSplit(join(copy, list))
  }, 60_000)

  afterAll(() => rmSync(copy, { recursive: true, force: true }))

  const run = (...args: string[]) => runIn(copy, ...args)
  const typeErrors = () => run('x', 'tsc', '--pretty', 'false').out.trim()

  test('is two files, which the type checker accepts; without the performer it does not', async () => {
    expect([...(await filesOf('README.md', 'Add an operation')).keys()]).toEqual([
      'common/operations/split.ts',
      'processor/performers/split.ts',
    ])
    expect(typeErrors()).toBe('')
    const list = join(copy, 'processor/performers/performers.ts')
    const whole = await Bun.file(list).text()
    await Bun.write(list, whole.replace(' split,', '').replace("import { split } from './split.ts'\n", ''))
    expect(typeErrors()).toContain("Property 'split' is missing")
    await Bun.write(list, whole)
  }, 60_000)

  test('is written by the command, with facts or steps or without, and filled in as CONTRIBUTING does', async () => {
    const added = {
      greet: [],
      'send-mail': ['--facts'],
      'book-table': ['--steps'],
      'pay-bill': ['--steps', '--facts'],
      'ship-order': ['--steps'],
    }
    for (const [type, options] of Object.entries(added))
      expect(run('tools/new.ts', 'operation', type, ...options)).toMatchObject({ code: 0, error: '' })
    const shown = await filesOf('CONTRIBUTING.md', 'An operation in steps')
    expect(shown.size).toBe(3)
    for (const [path, text] of shown) {
      expect(existsSync(join(copy, path))).toBe(true)
      await Bun.write(join(copy, path), text)
    }
    expect(run('run', 'check')).toMatchObject({ code: 0 })
    const tests = Object.keys(added).map((type) => `processor/performers/${type}.test.ts`)
    const tested = run('test', ...tests)
    expect({ code: tested.code, summary: /\d+ pass\n \d+ fail/.exec(tested.error)?.[0] }).toEqual({
      code: 0,
      summary: '10 pass\n 0 fail',
    })
  }, 120_000)

  test.each([
    [['greet'], 'common/operations/greet.ts exists already.'],
    [['Ship'], 'Ship is no name of an operation: it is words in lower case with hyphens, as ship-order.'],
    [['a'.repeat(41)], `${'a'.repeat(41)} is no name of an operation: it has more than 40 characters.`],
    [['class'], 'class is no name of an operation: the files need class for something else.'],
    [['test', '--steps'], 'test is no name of an operation: the files need test for something else.'],
    [['log-in', 'twice'], 'An operation has one name, so twice is too much.'],
    [['cancel'], 'cancel is no name of an operation: GraphQL has a cancel already.'],
    [['pack', '--step'], "Unknown option '--step'."],
    [[], 'NAME is missing.'],
  ])(
    '%j is refused with words, and nothing is written',
    async (words, error) => {
      const before = await digestOf(copy)
      const refused = run('tools/new.ts', 'operation', ...words)
      expect(refused.code).toBe(1)
      expect(refused.error).toStartWith(error)
      expect(await digestOf(copy)).toBe(before)
    },
    30_000,
  )

  test('is in REST, GraphQL, OpenAPI, AsyncAPI, the results, the timeline and the audit, with its steps', () => {
    const split = { type: 'split', field: 'split', outputFields: 'each last', input: { cents: 1000, people: 3 } }
    const booked = { type: 'book-table', field: 'bookTable', outputFields: 'text reference', input: { text: 'two' } }
    const added = [
      { ...split, events: 2 },
      { ...booked, events: 4 },
    ]
    const child = run('tests/system/added-operation.child.ts', JSON.stringify(added))
    expect(child).toMatchObject({ code: 0, error: '' })
    const half = { each: 333, last: 334 }
    const [progress, table] = [['reserve done', 'confirm done'], { text: 'two', reference: expect.any(String) }]
    const documented = { openApi: true, asyncApi: true }
    const [requested, progressed, succeeded] = ['requested', 'progressed', 'succeeded'].map(
      (end) => `posta.operation.${end}`,
    )
    expect(JSON.parse(child.out)).toEqual({
      found: [
        {
          type: 'split',
          rest: { output: half },
          graphql: { output: half },
          ...documented,
          result: half,
          timeline: [requested, succeeded],
        },
        {
          type: 'book-table',
          rest: { output: table, progress },
          graphql: { output: table, progress },
          ...documented,
          result: table,
          timeline: [requested, progressed, progressed, succeeded],
        },
      ],
      // Each was submitted over both APIs.
      audit: { ok: true, requests: 4, results: 8 },
    })
    expect(readdirSync(copy)).not.toContain('data')
  }, 60_000)
})

async function addSplit(list: string): Promise<void> {
  const text = await Bun.file(list).text()
  const after = text
    .replace(/(?:^import .*\n)+/m, "$&import { split } from './split.ts'\n")
    .replace(/export const (?:catalog|performers)[^=]*= \{/, '$& split,')
  if (after === text) throw new Error(`Nothing was changed in ${list}.`)
  await Bun.write(list, after)
}
