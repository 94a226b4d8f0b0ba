import { createInterface } from 'node:readline/promises'
import { Writable } from 'node:stream'
import { CommandError } from '@posta/common/service/command.ts'

/**
 * Reads a password: typed twice at a terminal, without echo, or else the first line of standard input.
 * @throws CommandError
 */
export async function askPassword(): Promise<string> {
  const password = process.stdin.isTTY ? await askTwice() : (await Bun.stdin.text()).split(/\r?\n/, 1)[0]
  if (!password) throw new CommandError('No password was given.')
  return password
}

async function askTwice(): Promise<string> {
  // What readline would echo is dropped.
  const output = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output, terminal: true })
  const left = Promise.withResolvers<string>()
  lines.on('close', () => left.resolve(''))
  const ask = async (question: string) => {
    process.stderr.write(question)
    const answer = await Promise.race([lines.question(''), left.promise])
    process.stderr.write('\n')
    return answer
  }
  try {
    const password = await ask('Password: ')
    if (password && (await ask('Again: ')) !== password) throw new CommandError('The two passwords differ.')
    return password
  } finally {
    lines.close()
  }
}
