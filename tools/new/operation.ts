import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { CommandError } from '../../common/service/command.ts'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { format } from './format.ts'

interface Kind {
  readonly facts: boolean
  readonly steps: boolean
}

interface NewOperation extends Kind {
  /** `ship-order` */
  readonly type: string
  /** `shipOrder` */
  readonly name: string
}

type TextOf = (path: string) => string | undefined

const MAX_NAME_CHARACTERS = 40

/**
 * Writes the files of an operation and its lines in the lists. Nothing is written unless all of it can be.
 * @returns the paths
 * @throws CommandError for a name that is none, or that is in use
 */
export async function writeOperation(type: string, kind: Kind): Promise<string[]> {
  const all = operationFiles(type, kind, (path) => {
    const at = join(REPOSITORY_ROOT, path)
    return existsSync(at) ? readFileSync(at, 'utf8') : undefined
  })
  for (const [path, text] of all) await Bun.write(join(REPOSITORY_ROOT, path), text)
  const paths = all.map(([path]) => path)
  format(REPOSITORY_ROOT, paths)
  return paths
}

/**
 * The files of an operation and the lists with it in them, path and text, not formatted.
 * @param textOf the text of a file as it is, undefined where there is none
 * @throws CommandError for a name that is none, or that is in use
 */
export function operationFiles(type: string, kind: Kind, textOf: TextOf): [string, string][] {
  const operation = { type, name: nameOf(type), ...kind }
  const files = filesOf(operation)
  if (!files.every(([, text]) => compiles(text)))
    throw new CommandError(`${type} is no name of an operation: the files need ${operation.name} for something else.`)
  for (const [path] of files) if (textOf(path) !== undefined) throw new CommandError(`${path} exists already.`)
  const lists = listsOf(operation).map((list): [string, string] => [list.path, added(operation, list, textOf)])
  return [...files, ...lists]
}

/** The name of the operation's constants. @throws CommandError */
function nameOf(type: string): string {
  if (!/^[a-z][a-z0-9]*(?:-[a-z][a-z0-9]*)*$/.test(type))
    throw new CommandError(`${type} is no name of an operation: it is words in lower case with hyphens, as ship-order.`)
  if (type.length > MAX_NAME_CHARACTERS)
    throw new CommandError(`${type} is no name of an operation: it has more than ${MAX_NAME_CHARACTERS} characters.`)
  const name = type.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase())
  if (IN_GRAPHQL.has(name)) throw new CommandError(`${type} is no name of an operation: GraphQL has a ${name} already.`)
  return name
}

/** Mutations and fields of an operation, beside those that are named for operations. */
const IN_GRAPHQL = new Set(
  'register login refresh logout cancel signal id type status error progress createdAt completedAt'.split(' '),
)

/** Whether it is one module: not if the operation's name is a keyword, or the name of what the file imports. */
function compiles(text: string): boolean {
  try {
    new Bun.Transpiler({ loader: 'ts' }).transformSync(text)
    return true
  } catch {
    return false
  }
}

interface List {
  readonly path: string
  /** How the declaration of the list begins. */
  readonly declaration: string
}

function listsOf({ facts }: Kind): List[] {
  const preparers = { path: 'gateway/preparers/preparers.ts', declaration: 'export const preparers' }
  return [
    { path: 'common/operations/catalog.ts', declaration: 'export const catalog' },
    { path: 'processor/performers/performers.ts', declaration: 'export const performers' },
    ...(facts ? [preparers] : []),
  ]
}

/** The list's file with the operation in it: an import, and an entry at the beginning of the list. */
function added({ type, name }: NewOperation, { path, declaration }: List, textOf: TextOf): string {
  const text = textOf(path) ?? ''
  const entry = type === name ? name : `'${type}': ${name}`
  const list = new RegExp(`${declaration}[^=]*= \\{`)
  const imports = /(?:^import .*\n)+/m
  if (!list.test(text) || !imports.test(text))
    throw new CommandError(`${path} is not as expected: add ${entry} by hand.`)
  if (new RegExp(`\\b${name}\\b`).test(text)) throw new CommandError(`${path} has a ${name} already.`)
  return text
    .replace(imports, (block) => `${block}import { ${name} } from './${type}.ts'\n`)
    .replace(list, (begin) => `${begin} ${entry},`)
}

const NOW = '2026-11-24T12:00:00.000Z'

function filesOf(operation: NewOperation): [path: string, text: string][] {
  const { type, facts, steps } = operation
  const performer = steps ? steppedPerformer(operation) : decidingPerformer(operation)
  const performerTest = steps ? steppedTest(operation) : decidingTest(operation)
  const files: [string, string][] = [
    [`common/operations/${type}.ts`, contract(operation)],
    [`processor/performers/${type}.ts`, performer],
    [`processor/performers/${type}.test.ts`, performerTest],
  ]
  return facts ? [...files, [`gateway/preparers/${type}.ts`, preparer(operation)]] : files
}

function contract({ type, name, facts, steps }: NewOperation): string {
  const summary = type.replaceAll('-', ' ').replace(/^./, (letter) => letter.toUpperCase())
  return `import * as v from 'valibot'
import { defineContract } from './contract.ts'

export const ${name} = defineContract({
  type: '${type}',
  summary: '${summary}',
  description: 'Answers with the text that it was given.',
  input: v.strictObject({ text: v.pipe(v.string(), v.minLength(1), v.maxLength(1000)) }),
  output: v.object({ text: v.string()${steps ? ', reference: v.string()' : ''} }),
  failures: [],
${facts ? '  facts: v.object({ now: v.pipe(v.string(), v.isoTimestamp()) }),\n' : ''}${steps ? '  steps: true,\n' : ''}})
`
}

function preparer({ type, name }: NewOperation): string {
  return `import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Preparer } from './preparer.ts'

/** Here it may ask outside: see \`Sources\`. What it throws as a Problem refuses the submission. */
export const ${name}: Preparer<Catalog['${type}']> = async () => ({ now: new Date().toISOString() })
`
}

const textOf = (facts: boolean) => (facts ? "[input.text, facts.now].join(' at ')" : 'input.text')
const expectedText = (facts: boolean) => (facts ? `hello at ${NOW}` : 'hello')

function decidingPerformer({ type, name, facts }: NewOperation): string {
  return `import type { Catalog } from '@posta/common/operations/catalog.ts'
import type { Performer } from './performer.ts'

export const ${name}: Performer<Catalog['${type}']> = {
  decide({ input${facts ? ', facts' : ''} }) {
    return { output: { text: ${textOf(facts)} } }
  },
}
`
}

function asked(facts: boolean): string {
  return `const asked = {
  id: 'op',
  user: 'ana',
  createdAt: '${NOW}',
  input: { text: 'hello' },
  facts: ${facts ? `{ now: '${NOW}' }` : 'undefined'},
  limit: { used: 0, bound: Number.POSITIVE_INFINITY },
  settings: {},
}
`
}

function decidingTest({ type, name, facts }: NewOperation): string {
  return `import { expect, test } from 'bun:test'
import { ${name} } from './${type}.ts'

${asked(facts)}
test('answers with the text that it was given', () => {
  expect(${name}.decide(asked)).toEqual({ output: { text: '${expectedText(facts)}' } })
})
`
}

function steppedPerformer({ type, name, facts }: NewOperation): string {
  return `import type { Catalog } from '@posta/common/operations/catalog.ts'
import * as v from 'valibot'
import type { Performer } from './performer.ts'

/** What \`decide\` says to the run. What steers the run belongs here: a setting may be another when the run goes on. */
const Decided = v.object({ text: v.string() })

export const ${name}: Performer<Catalog['${type}']> = {
  decide({ input${facts ? ', facts' : ''} }) {
    return { goOn: { text: ${textOf(facts)} } }
  },

  async run({ step, decided }) {
    const { text } = v.parse(Decided, decided)
    // A step does one thing outside, by the context's \`http\`, and passes its key on: it is the same in every attempt.
    const { reference } = await step('reserve', async ({ idempotencyKey }) => ({ reference: idempotencyKey }), {
      // Takes back what the step did, where the run fails or is cancelled.
      undo: async (reserved) => ({ released: reserved.reference }),
    })
    // From here on neither cancel nor time-out stops the run.
    await step('confirm', async () => ({ confirmed: reference }), { final: true })
    return { output: { text, reference } }
  },
}
`
}

function steppedTest({ type, name, facts }: NewOperation): string {
  return `import { expect, test } from 'bun:test'
import { input, newRun, runToEnd } from '../testing/run-to-end.ts'
import { ${name} } from './${type}.ts'

${asked(facts)}
const decided = { text: '${expectedText(facts)}' }
const run = newRun({ type: '${type}', input: asked.input, ${facts ? 'facts: asked.facts' : 'facts: undefined'}, decided })

test('decides to go on with the text that it was given', () => {
  expect(${name}.decide(asked)).toEqual({ goOn: decided })
})

test('reserves, confirms, and answers with the reference', async () => {
  const { outcome, records } = await runToEnd(${name}, { run })
  expect(outcome).toEqual({ output: { text: '${expectedText(facts)}', reference: 'op/reserve' } })
  expect(records.flatMap((record) => (record.kind === 'done' ? [record.step] : []))).toEqual(['reserve', 'confirm'])
})

test('a cancel after the reservation releases it', async () => {
  const { records } = await runToEnd(${name}, { run })
  const reserved = records.slice(0, 1 + records.findIndex(({ kind }) => kind === 'done'))
  const cancelled = await runToEnd(${name}, { run, records: reserved, inputs: [input('cancel')] })
  expect(cancelled.outcome).toMatchObject({ failure: { code: 'cancelled' } })
  expect(cancelled.records.map(({ kind }) => kind)).toEqual(['started', 'done', 'failing', 'undone', 'ended'])
})
`
}
