import { afterEach, beforeEach, expect, test } from 'bun:test'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import { createSignedCheckpoints } from '../audit/signed-checkpoints.ts'
import { createAppend } from '../events/append.ts'
import { toEvent } from '../events/record.ts'
import { openEmbedded } from '../store/embedded.ts'
import type { Store } from '../store/store.ts'
import { createSigner } from '../testing/checkpoints.ts'
import { deliver, loggedIn, NOON_MS } from '../testing/messages.ts'

const signer = createSigner()
let folder: ReturnType<typeof temporaryFolder>
let store: Store

beforeEach(() => {
  folder = temporaryFolder()
  store = openEmbedded(join(folder.path, 'monitor.db'))
})
afterEach(async () => {
  await store.close()
  folder.remove()
})

const live = (from: number, to: number) =>
  createAppend(store.events)(
    Array.from({ length: to - from }, (_, n) => toEvent(deliver(loggedIn(`e-${from + n}`), from + n), NOON_MS)),
  )

async function sign(): Promise<string> {
  const signedCheckpoints = createSignedCheckpoints({ store, findKey: signer.findKey, deps: { now: () => NOON_MS } })
  const jwt = signer.sign(await signedCheckpoints.heads(), NOON_MS)
  await signedCheckpoints.keep(jwt)
  return jwt
}

async function file(name: string, content: string | object): Promise<string> {
  const path = join(folder.path, name)
  await Bun.write(path, typeof content === 'string' ? content : JSON.stringify(content))
  return path
}

async function audit(...words: string[]) {
  const spawned = Bun.spawn([process.execPath, join(import.meta.dir, 'audit.ts'), ...words], {
    cwd: folder.path,
    env: { PATH: process.env.PATH, DATA_DIR: folder.path },
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

test('an export of a whole store is whole, offline and by a checkpoint that was kept elsewhere', async () => {
  await live(0, 1200)
  await file('kept.json', { time: 'whenever', checkpoint: await sign() })
  expect(await audit('export', '--out', 'export.ndjson')).toEqual({ out: '', err: '', code: 0 })
  expect((await audit('export')).out).toBe(await Bun.file(join(folder.path, 'export.ndjson')).text())
  await store.close()
  rmSync(join(folder.path, 'monitor.db'))
  const { out, err, code } = await audit('verify', 'export.ndjson', '--checkpoint', 'kept.json')
  expect({ err, code }).toEqual({ err: '', code: 0 })
  expect(out).toMatch(
    /^posta\.events\/0 {2}1200 events to number 1200 {2}[\da-f]{64}\nThe newest checkpoint.*2026-11-23T12/,
  )
  expect(out).toEndWith('Every chain is whole.\n')
}, 30_000)

test('an export that was cut off looks whole without a checkpoint; with one the command says where', async () => {
  await live(0, 5)
  await file('kept.jwt', await sign())
  await file('keys.json', { keys: signer.published() })
  await audit('export', '--out', 'export.ndjson')
  const lines = (await Bun.file(join(folder.path, 'export.ndjson')).text()).split('\n')
  // The first line is the store's own checkpoint, which an attacker would take away too.
  await file('cut.ndjson', `${lines.slice(1, 4).join('\n')}\n`)
  expect(await audit('verify', 'cut.ndjson')).toMatchObject({
    code: 0,
    out: expect.stringContaining('No checkpoint was given'),
  })
  for (const keys of [[], ['--keys', 'keys.json']])
    expect(await audit('verify', 'cut.ndjson', '--checkpoint', 'kept.jwt', ...keys)).toMatchObject({
      code: 1,
      out: expect.stringMatching(/first bad: number 4\. It is missing.*number 5/),
      err: '1 of 1 chains are not whole.\n',
    })
  // With the keys alone the export's own checkpoint counts, if it is there.
  await file('own.ndjson', `${lines.slice(0, 4).join('\n')}\n`)
  expect(await audit('verify', 'own.ndjson', '--keys', 'keys.json')).toMatchObject({ code: 1 })
  expect(await audit('verify', 'cut.ndjson', '--keys', 'keys.json')).toMatchObject({ code: 0 })
}, 30_000)

test('the store itself is verified where no export is given', async () => {
  await live(0, 5)
  await file('kept.jwt', await sign())
  await store.close()
  store = openEmbedded(join(folder.path, 'monitor.db'))
  expect(await audit('verify', '--checkpoint', 'kept.jwt')).toMatchObject({ code: 0, err: '' })
  rmSync(join(folder.path, 'monitor.db'))
  expect(await audit('verify', '--checkpoint', 'kept.jwt')).toMatchObject({
    code: 1,
    out: expect.stringMatching(/posta\.events\/0.*\n {2}first bad: number 1\. /),
  })
}, 30_000)

test('what is wrong is said in one line', async () => {
  await file('empty.jwt', '')
  await file('list.json', [])
  await file('other.json', { keys: createSigner().published() })
  await live(0, 1)
  await file('kept.jwt', await sign())
  const failing: readonly (readonly [string[], RegExp])[] = [
    [[], /^bun run audit export/],
    [['verify', 'a', 'b'], /^bun run audit export/],
    [['export', '--checkpoint', 'kept.jwt'], /^bun run audit export/],
    [['verify', 'missing.ndjson'], /^There is no such file or folder: missing\.ndjson\n$/],
    [['verify', '.'], /^This is a folder: \.\n$/],
    [['verify', '--checkpoint', 'missing.jwt'], /^There is no such file or folder: missing\.jwt\n$/],
    [['export', '--out', 'missing/file'], /^There is no such file or folder: missing\/file\n$/],
    [['verify', 'list.json'], /^Line 1 is no line of an export\.\n$/],
    [['verify', '--checkpoint', 'empty.jwt'], /^The checkpoint is damaged/],
    [['verify', '--checkpoint', 'kept.jwt', '--keys', 'list.json'], /^list\.json holds no JWK set\.\n$/],
    [
      ['verify', '--checkpoint', 'kept.jwt', '--keys', 'other.json'],
      /^None of the keys has signed the checkpoint\.\n$/,
    ],
  ]
  const answers = failing.map(async ([words, message]) => ({ words, message, ...(await audit(...words)) }))
  for (const { words, message, err, code } of await Promise.all(answers)) {
    expect(code, words.join(' ')).toBe(1)
    expect(err, words.join(' ')).toMatch(message)
  }
}, 60_000)
