import { afterAll, expect, test } from 'bun:test'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import { openDatabase } from '../database/open.ts'
import { outbox, signingKeys } from '../database/schema.ts'

const folder = temporaryFolder()
afterAll(folder.remove)

const databaseUrl = () => `file:${join(folder.path, 'gateway.db')}`
const environment = () => ({ PATH: process.env.PATH, DATABASE_URL: databaseUrl() })
const command = (tool: string, words: string[]) => [process.execPath, join(import.meta.dir, `${tool}.ts`), ...words]

async function run(tool: 'users' | 'keys', words: string[], input = '', more: object = {}) {
  const spawned = Bun.spawn(command(tool, words), {
    env: { ...environment(), ...more },
    stdin: Buffer.from(input),
    stdout: 'pipe',
    stderr: 'pipe',
  })
  const [out, err, code] = await Promise.all([
    new Response(spawned.stdout).text(),
    new Response(spawned.stderr).text(),
    spawned.exited,
  ])
  return { out, err, code }
}

test('users are added with a password from standard input, listed, given a role and disabled', async () => {
  const added = await run('users', ['add', 'Ana@Example.com', '--role', 'operator'], 'four words nobody says\n')
  expect(added).toMatchObject({ err: '', code: 0 })
  expect((await run('users', ['list'])).out).toMatch(/^\S+ {2}\S+ {2}operator {2}ana@example\.com\n$/)
  expect(await run('users', ['role', 'ana@example.com', 'user'])).toMatchObject({ code: 0 })
  expect(await run('users', ['disable', 'ANA@example.com'])).toMatchObject({ code: 0 })
  expect((await run('users', ['list'])).out).toMatch(/ {2}user {6}ana@example\.com {2}disabled\n$/)
  expect(await run('users', ['enable', 'ana@example.com'])).toMatchObject({ code: 0 })
  const changed = await run('users', ['password', 'ana@example.com'], 'five words that nobody says')
  expect(changed).toEqual({ out: '', err: '', code: 0 })

  const { database, close } = await openDatabase({ url: databaseUrl() })
  const events = (await database.select().from(outbox)).map(({ event }) => event?.type)
  expect(events).toEqual([
    'posta.user.registered',
    'posta.user.role-changed',
    'posta.user.role-changed',
    'posta.user.disabled',
    'posta.user.enabled',
    'posta.user.password-changed',
  ])
  await close()
})

test('a mistake is answered with one line and exit code 1', async () => {
  expect(await run('users', ['add', 'not an email'], 'four words nobody says\n')).toEqual({
    out: '',
    err: 'email must be an email address\n',
    code: 1,
  })
  expect(await run('users', ['add', 'b@example.com'], 'too short\n')).toMatchObject({
    err: 'password must have 15 to 256 characters\n',
    code: 1,
  })
  expect(await run('users', ['add', 'b@example.com'])).toMatchObject({ err: 'No password was given.\n', code: 1 })
  expect(await run('users', ['role', 'nobody@example.com', 'user'])).toMatchObject({
    err: 'There is no user with this email.\n',
    code: 1,
  })
})

test('a password as an argument is refused, and the usage is shown', async () => {
  const { err, code } = await run('users', ['add', 'b@example.com', 'four words nobody says'])
  expect(err).toContain('bun run users add EMAIL')
  expect(code).toBe(1)
})

test('keys rotate makes the next key the current one', async () => {
  const { out, code } = await run('keys', ['rotate'])
  expect(code).toBe(0)
  const { database, close } = await openDatabase({ url: databaseUrl() })
  const rows = await database.select({ kid: signingKeys.kid, status: signingKeys.status }).from(signingKeys)
  expect(rows).toHaveLength(3)
  expect(rows).toContainEqual({ kid: out.split(' ')[0] ?? '', status: 'current' })
  await close()
  for (const words of [[], ['rotate', 'x'], ['revoke'], ['revoke', 'a', 'b'], ['toString']]) {
    const { err, code } = await run('keys', words)
    expect(err).toStartWith('bun run keys rotate\nbun run keys revoke KID\n')
    expect(code).toBe(1)
  }
})

test('keys list shows what keys revoke takes, and keys encrypt says what to do about keys that were readable', async () => {
  const before = (await run('keys', ['list'])).out
  const current = /^(\S+) current$/m.exec(before)?.[1] ?? ''
  const next = /^(\S+) next$/m.exec(before)?.[1] ?? ''
  expect(await run('keys', ['revoke', 'none'])).toMatchObject({ err: expect.stringContaining(current), code: 1 })
  expect((await run('keys', ['revoke', current])).out).toContain(`${next} signs from now on`)
  const after = (await run('keys', ['list'])).out
  expect(after).not.toContain(current)
  expect(after).toContain(`${next} current\n`)

  expect(await run('keys', ['encrypt'])).toMatchObject({ err: 'KEY_ENCRYPTION_KEY is not set.\n', code: 1 })
  const KEY_ENCRYPTION_KEY = randomBytes(32).toString('base64')
  expect((await run('keys', ['encrypt'], '', { KEY_ENCRYPTION_KEY })).out).toContain('`bun run keys rotate`, twice')
  expect((await run('keys', ['encrypt'], '', { KEY_ENCRYPTION_KEY })).out).not.toContain('twice')
  expect((await run('keys', ['list'], '', { KEY_ENCRYPTION_KEY })).out).toContain(`${next} current, encrypted\n`)
  expect(await run('keys', ['list'])).toMatchObject({ err: expect.stringContaining('KEY_ENCRYPTION_KEY: '), code: 1 })
})

test('a password typed at a terminal is not shown', async () => {
  let shown = ''
  const typed = 'six words that nobody ever says'
  let asked = 0
  const terminal = new Bun.Terminal({
    data(opened, data) {
      shown += new TextDecoder().decode(data)
      const questions = shown.match(/Password: |Again: /g)?.length ?? 0
      if (questions > asked) {
        asked = questions
        opened.write(`${typed}\r`)
      }
    },
  })
  const spawned = Bun.spawn(command('users', ['add', 'typed@example.com']), { env: environment(), terminal })
  expect(await spawned.exited).toBe(0)
  terminal.close()
  expect(asked).toBe(2)
  expect(shown).not.toContain('six words')
  expect((await run('users', ['list'])).out).toContain('typed@example.com')
})
