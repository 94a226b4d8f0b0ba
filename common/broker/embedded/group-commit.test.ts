import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { temporaryFolder } from '../../testing/temporary-folder.ts'
import { createGroupCommit } from './group-commit.ts'

const MIB = 1024 * 1024

/** How many of these writes, made at once, each transaction has. */
async function cut(writes: readonly { readonly bytes: number; readonly lazily?: boolean }[]): Promise<number[]> {
  using db = new Database(':memory:')
  const counts: number[] = []
  let count = 0
  const write = createGroupCommit(db, () => {
    counts.push(count)
    count = 0
  })
  await Promise.all(writes.map((options) => write(() => count++, options)))
  return counts
}
const times = (count: number, bytes: number) => Array.from({ length: count }, () => ({ bytes }))

test('a transaction has at most 4 MiB, unless a single write has more', async () => {
  expect(await cut(times(9, MIB))).toEqual([4, 4, 1])
  expect(await cut([...times(1, 5 * MIB), ...times(2, 3 * MIB)])).toEqual([1, 1, 1])
})

test('a transaction has at most 2000 writes', async () => {
  expect(await cut(times(2001, 0))).toEqual([2000, 1])
})

test('what nobody waits for joins the transaction of what somebody waits for, or has one of its own soon', async () => {
  expect(await cut([{ bytes: 0, lazily: true }, { bytes: 0 }])).toEqual([2])
  expect(
    await cut([
      { bytes: 0, lazily: true },
      { bytes: 0, lazily: true },
    ]),
  ).toEqual([2])
})

test('writes wait up to 64 MiB, unless a single one has more; what would be beyond is refused, and taken once there is room', async () => {
  using db = new Database(':memory:')
  const write = createGroupCommit(db, () => {})
  const ask = (bytes: number) => write(() => bytes, { bytes })
  const refused = "Too much waits to be written to the broker's file. Try again later."
  const [first, second] = [ask(64 * MIB - 1), ask(1)]
  await expect(ask(1)).rejects.toThrow(refused)
  expect(await Promise.all([first, second])).toEqual([64 * MIB - 1, 1])
  const large = ask(65 * MIB)
  await expect(ask(0)).rejects.toThrow(refused)
  expect(await large).toBe(65 * MIB)
})

test('a transaction of which one part fails is undone, and rejects all that it has; the next works', async () => {
  using db = new Database(':memory:')
  db.run('CREATE TABLE numbers (n INTEGER)')
  let ended = 0
  const write = createGroupCommit(db, () => ended++)
  const insert = (n: number) => write(() => db.run('INSERT INTO numbers VALUES (?)', [n]))
  const failing = write(() => {
    throw new Error('It fails (this test makes it so).')
  })
  const settled = await Promise.allSettled([insert(1), failing, insert(2)])
  expect(settled.map((each) => (each.status === 'rejected' ? String(each.reason) : ''))).toEqual(
    Array.from({ length: 3 }, () => 'Error: It fails (this test makes it so).'),
  )
  expect(ended).toBe(1)
  await insert(3)
  expect(db.query('SELECT n FROM numbers').all()).toEqual([{ n: 3 }])
  expect(ended).toBe(2)
})

test('all that waits is rejected where no transaction can begin, and later writes are tried anew', async () => {
  const db = new Database(':memory:')
  const write = createGroupCommit(db, () => {})
  db.run('BEGIN')
  const settled = await Promise.allSettled([write(() => 1), write(() => 2, { lazily: true })])
  const reasons = settled.map((each) => (each.status === 'rejected' ? String(each.reason) : ''))
  for (const reason of reasons) expect(reason).toContain('within a transaction')
  db.run('COMMIT')
  expect(await write(() => 3)).toBe(3)
  db.close()
})

test('a write waits while another process keeps the file locked, and then succeeds', async () => {
  using folder = temporaryFolder()
  const path = join(folder.path, 'locked.sqlite')
  using db = new Database(path)
  using other = new Database(path)
  const write = createGroupCommit(db, () => {})
  other.run('BEGIN IMMEDIATE')
  const waiting = write(() => 'written')
  // Turns of the event loop in which it tries in vain.
  for (let turn = 0; turn < 5; turn++) await setImmediate()
  other.run('ROLLBACK')
  expect(await waiting).toBe('written')
})
