// `bun run new operation NAME` writes the files of an operation, `bun run new project NAME DIR` a copy of this repository.
import { parseArgs } from 'node:util'
import { asCommand, CommandError } from '../common/service/command.ts'
import { writeOperation } from './new/operation.ts'
import { writeProject } from './new/project.ts'
import { withoutExamples } from './new/without-examples.ts'

const USAGE = [
  `bun run new operation NAME [--facts] [--steps]

Writes the first version of an operation, with a test that passes. NAME is in lower case, with hyphens: ship-order.
  --facts  gateway learns something from outside before it accepts the operation
  --steps  it has effects outside, takes long or waits for people: it is done in steps

bun run new project NAME DIR [OPTIONS]

Copies this repository to DIR, which must be empty or not exist, under another name. NAME has lower case letters, digits and
hyphens: my-shop. It is the name of the packages, topics, groups and metrics, and in the documents.`,
  '  --without-examples  leaves the example operations out; there are two small ones to begin with', // example
].join('\n')

const PROJECT_OPTIONS: readonly string[] = [
  'without-examples', // example
]

await asCommand(async () => {
  const [what, ...args] = process.argv.slice(2)
  if (what === 'operation') return newOperation(args)
  if (what === 'project') return newProject(args)
  throw mistake(what === undefined ? 'Say what is to be new.' : `${what} cannot be made.`)
})

async function newOperation(args: string[]): Promise<void> {
  const { values, positionals } = read(args, ['facts', 'steps'])
  const [name, ...more] = positionals
  if (name === undefined) throw mistake('NAME is missing.')
  if (more.length > 0) throw mistake(`An operation has one name, so ${more.join(' ')} is too much.`)
  const written = await writeOperation(name, { facts: values.facts === true, steps: values.steps === true })
  console.log(
    `${written.join('\n')}\n\nWritten. Change all but the lists to what it does, the test too, then: bun run check && bun test`,
  )
}

async function newProject(args: string[]): Promise<void> {
  const given = read(args, PROJECT_OPTIONS)
  const [name, folder, ...more] = given.positionals
  if (name === undefined || folder === undefined) throw mistake(`${name === undefined ? 'NAME' : 'DIR'} is missing.`)
  if (more.length > 0) throw mistake(`A project has one name and one folder, so ${more.join(' ')} is too much.`)
  if (given.values['without-examples'] === true) return tell(writeProject(name, folder, withoutExamples()), folder) // example
  tell(writeProject(name, folder), folder)
}

function tell({ paths, changed }: ReturnType<typeof writeProject>, folder: string): void {
  console.log(`${paths.length} files are in ${folder}; ${changed.length} of them have the name in them.

Next: cd ${folder} && git init && npx -y bun@${Bun.version} run verify`)
}

/** @throws CommandError for an option that is not among them */
function read(args: string[], names: readonly string[]) {
  try {
    const options = Object.fromEntries(names.map((name) => [name, { type: 'boolean' as const }]))
    return parseArgs({ args, allowPositionals: true, options })
  } catch (error) {
    throw mistake(error instanceof Error ? error.message : String(error))
  }
}

function mistake(what: string): CommandError {
  return new CommandError(`${what}\n\n${USAGE}`)
}
