// `bun run new operation NAME [--facts]`: writes the files of an operation, with a test that passes, and adds them to the lists.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { asCommand, CommandError } from '../common/service/command.ts'
import { REPOSITORY_ROOT } from '../common/service/config.ts'

const USAGE = `bun run new operation NAME [--facts]

NAME is in lower case, with hyphens: ship-order. --facts: gateway learns something from outside before it accepts the operation.`

interface NewOperation {
  /** `ship-order` */
  readonly type: string
  /** `shipOrder` */
  readonly name: string
  readonly facts: boolean
}

await asCommand(async () => {
  const written = await write(readArguments(process.argv.slice(2)))
  console.log(
    `${written.join('\n')}\n\nWritten. Change all but the lists to what it does, the test too, then: bun run check && bun test`,
  )
})

function readArguments(args: string[]): NewOperation {
  let parsed: ReturnType<typeof parse>
  try {
    parsed = parse(args)
  } catch {
    throw new CommandError(USAGE)
  }
  const [what, type = '', ...more] = parsed.positionals
  if (what !== 'operation' || more.length > 0) throw new CommandError(USAGE)
  if (!/^[a-z][a-z0-9]*(?:-[a-z][a-z0-9]*)*$/.test(type) || type.length > 40)
    throw new CommandError(`${type || 'NAME'} is no name of an operation.\n\n${USAGE}`)
  const name = type.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())
  return { type, name, facts: parsed.values.facts }
}

function parse(args: string[]) {
  return parseArgs({ args, allowPositionals: true, options: { facts: { type: 'boolean', default: false } } })
}

/** Writes nothing unless all of it can be written. Resolves to the paths. */
async function write(operation: NewOperation): Promise<string[]> {
  const files = filesOf(operation)
  for (const [path] of files)
    if (existsSync(join(REPOSITORY_ROOT, path))) throw new CommandError(`${path} exists already.`)
  const lists = await Promise.all(
    listsOf(operation).map(async (list) => ({ ...list, text: await added(operation, list) })),
  )
  for (const [path, text] of files) await Bun.write(join(REPOSITORY_ROOT, path), text)
  for (const { path, text } of lists) await Bun.write(join(REPOSITORY_ROOT, path), text)
  const written = [...files.map(([path]) => path), ...lists.map(({ path }) => path)]
  // Puts the imports in order and breaks long lines.
  const biome = [process.execPath, 'x', 'biome', 'check', '--write', ...written]
  const { exitCode, stderr } = Bun.spawnSync(biome, { cwd: REPOSITORY_ROOT, stdout: 'ignore', stderr: 'pipe' })
  if (exitCode !== 0) throw new Error(`The files are written, but could not be formatted: ${stderr.toString()}`)
  return written
}

interface List {
  readonly path: string
  /** How the declaration of the list begins. */
  readonly declaration: string
}

function listsOf({ facts }: NewOperation): List[] {
  const preparers = { path: 'gateway/preparers/preparers.ts', declaration: 'export const preparers' }
  return [
    { path: 'common/operations/catalog.ts', declaration: 'export const catalog' },
    { path: 'processor/performers/performers.ts', declaration: 'export const performers' },
    ...(facts ? [preparers] : []),
  ]
}

/** The list's file with the operation in it: an import, and an entry at the end of the list. */
async function added({ type, name }: NewOperation, { path, declaration }: List): Promise<string> {
  const text = await Bun.file(join(REPOSITORY_ROOT, path)).text()
  const entry = type === name ? name : `'${type}': ${name}`
  const list = new RegExp(`(${declaration}[^=]*= \\{[^}]*?),?\\s*\\}`)
  const imports = /(?:^import .*\n)+/m
  if (!list.test(text) || !imports.test(text))
    throw new CommandError(`${path} is not as expected: add ${entry} by hand.`)
  return text
    .replace(imports, (block) => `${block}import { ${name} } from './${type}.ts'\n`)
    .replace(list, (_, entries: string) => `${entries}, ${entry} }`)
}

function filesOf({ type, name, facts }: NewOperation): [path: string, text: string][] {
  const summary = `${type.replaceAll('-', ' ').replace(/^./, (letter) => letter.toUpperCase())}`
  const contract = `import * as v from 'valibot'
import { defineContract } from './contract.ts'

export const ${name} = defineContract({
  type: '${type}',
  summary: '${summary}',
  description: 'What it does, in a sentence or two.',
  input: v.strictObject({ text: v.pipe(v.string(), v.minLength(1), v.maxLength(1000)) }),
  output: v.object({ text: v.string() }),
  failures: [],
${facts ? '  facts: v.object({ now: v.pipe(v.string(), v.isoTimestamp()) }),\n' : ''}})
`
  const performer = `import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Performer } from './performer.ts'

export const ${name}: Performer<Catalog['${type}']> = {
  decide({ input${facts ? ', facts' : ''} }) {
    return { output: { text: ${facts ? "[input.text, facts.now].join(' at ')" : 'input.text'} } }
  },
}
`
  const performerTest = `import { expect, test } from 'bun:test'
import { ${name} } from './${type}.ts'

test('answers with the text that it was given', () => {
  const outcome = ${name}.decide({
    id: 'op',
    user: 'ana',
    createdAt: '2026-11-24T12:00:00.000Z',
    input: { text: 'hello' },
    facts: ${facts ? "{ now: '2026-11-24T12:00:00.000Z' }" : 'undefined'},
    limit: { used: 0, bound: Number.POSITIVE_INFINITY },
    settings: {},
  })
  expect(outcome).toEqual({ output: { text: ${facts ? "'hello at 2026-11-24T12:00:00.000Z'" : "'hello'"} } })
})
`
  const preparer = `import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Preparer } from './preparer.ts'

/** Here it may ask outside: see \`Sources\`. What it throws as a Problem refuses the submission. */
export const ${name}: Preparer<Catalog['${type}']> = async () => ({ now: new Date().toISOString() })
`
  return [
    [`common/operations/${type}.ts`, contract],
    [`processor/performers/${type}.ts`, performer],
    [`processor/performers/${type}.test.ts`, performerTest],
    ...(facts ? [[`gateway/preparers/${type}.ts`, preparer] satisfies [string, string]] : []),
  ]
}
