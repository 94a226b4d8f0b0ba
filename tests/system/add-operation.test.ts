import { afterAll, beforeAll, expect, test } from 'bun:test'
import { cpSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { serviceNames } from '../../common/name.ts'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { describeLong } from '../testing/parts.ts'

/** The files of README's "Add an operation", by their path, which is the first line of each. */
async function filesOfReadme(): Promise<ReadonlyMap<string, string>> {
  const readme = await Bun.file(join(REPOSITORY_ROOT, 'README.md')).text()
  const section = readme.split('\n## Add an operation\n')[1]?.split('\n## ')[0] ?? ''
  const blocks = [...section.matchAll(/```ts\n\/\/ (\S+)\n([\s\S]*?)```/g)]
  return new Map(blocks.map(([, path = '', text = '']) => [path, text]))
}

async function edit(path: string, change: (text: string) => string): Promise<void> {
  const before = await Bun.file(path).text()
  const after = change(before)
  if (after === before) throw new Error(`Nothing was changed in ${path}.`)
  await Bun.write(path, after)
}

describeLong('an operation that is added as README says', () => {
  let copy: string

  beforeAll(async () => {
    copy = mkdtempSync(join(tmpdir(), 'posta-copy-'))
    const names = [
      'common',
      ...serviceNames,
      'tools',
      'tests',
      'package.json',
      'tsconfig.json',
      'biome.json',
      '.gitignore',
    ]
    for (const name of names)
      cpSync(join(REPOSITORY_ROOT, name), join(copy, name), { recursive: true, verbatimSymlinks: true })
    symlinkSync(join(REPOSITORY_ROOT, 'node_modules'), join(copy, 'node_modules'))
    // The copy's own packages, in the place of those that the links name.
    for (const name of serviceNames) {
      const scope = join(copy, name, 'node_modules/@posta')
      rmSync(join(scope, 'common'), { force: true })
      symlinkSync(join(copy, 'common'), join(scope, 'common'))
    }
    for (const [path, text] of await filesOfReadme()) await Bun.write(join(copy, path), text)
    await edit(join(copy, 'common/operations/catalog.ts'), (text) =>
      text
        .replace('import { storeRates }', "import { split } from './split.ts'\nimport { storeRates }")
        .replace("'store-rates': storeRates }", "'store-rates': storeRates, split }"),
    )
    await edit(join(copy, 'processor/performers/performers.ts'), (text) =>
      text
        .replace('import { storeRates }', "import { split } from './split.ts'\nimport { storeRates }")
        .replace("'store-rates': storeRates }", "'store-rates': storeRates, split }"),
    )
  })

  afterAll(() => rmSync(copy, { recursive: true, force: true }))

  test('is two files, which the type checker accepts; without the performer it does not', async () => {
    expect([...(await filesOfReadme()).keys()]).toEqual(['common/operations/split.ts', 'processor/performers/split.ts'])
    expect(await typeCheck(copy)).toBe('')
    const list = join(copy, 'processor/performers/performers.ts')
    const whole = await Bun.file(list).text()
    await Bun.write(
      list,
      whole.replace('storeRates, split }', 'storeRates }').replace("import { split } from './split.ts'\n", ''),
    )
    expect(await typeCheck(copy)).toContain("Property 'split' is missing")
    await Bun.write(list, whole)
  }, 60_000)

  test('is written by the command, with facts or without, so that it compiles and its test passes', async () => {
    const run = (...args: string[]) =>
      Bun.spawnSync([process.execPath, ...args], { cwd: copy, stdio: ['ignore', 'pipe', 'pipe'] })
    expect(run('tools/new.ts', 'operation', 'ship-order', '--facts').exitCode).toBe(0)
    expect(run('tools/new.ts', 'operation', 'greet').exitCode).toBe(0)
    expect(await typeCheck(copy)).toBe('')
    expect(run('test', 'processor/performers/ship-order.test.ts', 'processor/performers/greet.test.ts').exitCode).toBe(
      0,
    )
    const again = run('tools/new.ts', 'operation', 'greet')
    expect({ code: again.exitCode, said: again.stderr.toString() }).toEqual({
      code: 1,
      said: 'common/operations/greet.ts exists already.\n',
    })
  }, 60_000)

  test('is in REST, GraphQL, OpenAPI, AsyncAPI, the results and the timeline', async () => {
    const child = Bun.spawn([process.execPath, join(copy, 'tests/system/added-operation.child.ts')], {
      cwd: copy,
      env: { ...process.env, NODE_ENV: 'test' },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const printed = await new Response(child.stdout).text()
    expect(await child.exited).toBe(0)
    expect(JSON.parse(printed)).toEqual({
      rest: { each: 333, last: 334 },
      graphql: { each: 250, last: 250 },
      openApi: true,
      asyncApi: true,
      result: { each: 333, last: 334 },
      timeline: ['posta.operation.requested', 'posta.operation.succeeded'],
    })
    expect(readdirSync(copy)).not.toContain('data')
  }, 60_000)
})

async function typeCheck(folder: string): Promise<string> {
  const child = Bun.spawn([process.execPath, 'x', 'tsc', '--pretty', 'false'], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return (await new Response(child.stdout).text()).trim()
}
