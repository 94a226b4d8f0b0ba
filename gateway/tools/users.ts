import { parseArgs } from 'node:util'
import { CommandError } from '@posta/common/service/command.ts'
import { systemDeps as deps } from '@posta/common/service/deps.ts'
import { type Administration, createAdministration } from '../accounts/administration.ts'
import { createPasswords } from '../accounts/passwords.ts'
import { createAddUser } from '../accounts/register.ts'
import type { UserRow } from '../accounts/user.ts'
import { eventAdder } from '../database/events.ts'
import { askPassword } from './ask-password.ts'
import { runCommand } from './command.ts'

const USAGE = `bun run users add EMAIL [--role operator]
bun run users list
bun run users role EMAIL user|operator
bun run users disable EMAIL
bun run users enable EMAIL
bun run users password EMAIL

The password is typed at a prompt or read from standard input. It is never an argument.`

type Accounts = Administration & { readonly addUser: ReturnType<typeof createAddUser> }

await runCommand((argv) => {
  const run = choose(argv)
  return async (opened) => {
    const options = { ...opened, deps, passwords: createPasswords(), addEvent: eventAdder(deps) }
    await run({ ...createAdministration(options), addUser: createAddUser(options) })
  }
})

function choose(argv: string[]): (accounts: Accounts) => Promise<void> {
  const { positionals, role } = parse(argv)
  const [command, email = '', argument] = positionals
  const is = (name: string, words: number) => command === name && positionals.length === words
  if (is('add', 2)) return (accounts) => add(accounts, email, asRole(role ?? 'user'))
  if (role !== undefined) throw new CommandError(USAGE)
  if (is('list', 1)) return list
  if (is('role', 3)) {
    const next = asRole(argument)
    return (accounts) => accounts.setRole(email, next)
  }
  if (is('disable', 2)) return (accounts) => accounts.disable(email)
  if (is('enable', 2)) return (accounts) => accounts.enable(email)
  if (is('password', 2)) return async (accounts) => accounts.setPassword(email, await askPassword())
  throw new CommandError(USAGE)
}

function parse(argv: string[]) {
  try {
    const options = { role: { type: 'string' } } as const
    const { positionals, values } = parseArgs({ args: argv, allowPositionals: true, options })
    return { positionals, role: values.role }
  } catch {
    throw new CommandError(USAGE)
  }
}

function asRole(text: string | undefined): UserRow['role'] {
  if (text === 'user' || text === 'operator') return text
  throw new CommandError('The role must be user or operator.')
}

async function add({ addUser }: Accounts, email: string, role: UserRow['role']): Promise<void> {
  const user = await addUser({ email, password: await askPassword() }, { role })
  console.log(user.id)
}

async function list(accounts: Accounts): Promise<void> {
  for await (const { id, email, role, createdAt, disabledAt } of accounts.list()) {
    const words = [id, new Date(createdAt).toISOString(), role.padEnd('operator'.length), email]
    console.log([...words, ...(disabledAt === null ? [] : ['disabled'])].join('  '))
  }
}
