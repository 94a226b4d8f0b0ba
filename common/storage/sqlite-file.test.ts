import { Database } from 'bun:sqlite'
import { afterEach, beforeEach, expect, test } from 'bun:test'
import { rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { countSyncs, hasStrace } from '../testing/count-syncs.ts'
import { temporaryFolder } from '../testing/temporary-folder.ts'
import { makePrivate, type SqliteFile, sqliteFile } from './sqlite-file.ts'

const schema = 'CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, age INTEGER) STRICT'
let folder: ReturnType<typeof temporaryFolder>
let path: string
const opened: SqliteFile[] = []

beforeEach(() => {
  folder = temporaryFolder()
  path = join(folder.path, 'new', 'store.db')
})

afterEach(async () => {
  for (const file of opened.splice(0)) await file.close()
  folder.remove()
})

function open(): SqliteFile {
  const file = sqliteFile(path, [schema])
  opened.push(file)
  return file
}

test('values are bound in order or by name, and a write says how many rows it changed', async () => {
  const file = open()
  expect(await file.write('INSERT INTO users VALUES (?, ?), (?, ?)', 'ana', 30, 'bob', null)).toBe(2)
  expect(await file.write('UPDATE users SET age = $age WHERE id = $id', { id: 'bob', age: 40 })).toBe(1)
  expect(await file.write('DELETE FROM users WHERE id = ?', 'eve')).toBe(0)
  expect(await file.all<object>('SELECT * FROM users WHERE age > $age ORDER BY id', { age: 29 })).toEqual([
    { id: 'ana', age: 30 },
    { id: 'bob', age: 40 },
  ])
})

test('rows are written in their order, all of them or none', async () => {
  const file = open()
  const insert = 'INSERT INTO users VALUES ($id, $age)'
  await file.writeEach(insert, [
    { id: 'ana', age: 30 },
    { id: 'bob', age: null },
  ])
  const again = ['eve', 'ana', 'ida'].map((id) => ({ id, age: 20 }))
  await expect(file.writeEach(insert, again)).rejects.toMatchObject({ code: 'SQLITE_CONSTRAINT_PRIMARYKEY' })
  expect(await file.all('SELECT id FROM users ORDER BY rowid')).toEqual([{ id: 'ana' }, { id: 'bob' }])
})

test('what is written without a sync is seen by every process, and a write says what it answers', async () => {
  const file = open()
  const insert = 'INSERT INTO users VALUES (?, ?) RETURNING id'
  expect(await file.writeUnsynced<object>(insert, 'ana', 30)).toEqual([{ id: 'ana' }])
  expect(await open().all<object>('SELECT * FROM users')).toEqual([{ id: 'ana', age: 30 }])
  await expect(file.writeUnsynced(insert, 'ana', 40)).rejects.toThrow('UNIQUE')
  expect(await file.writeUnsynced<object>('UPDATE users SET age = $age RETURNING age', { age: 50 })).toEqual([
    { age: 50 },
  ])
})

test.skipIf(!hasStrace)(
  'under strace: each write is synced, but for those without a sync, also after one that failed',
  async () => {
    const syncs = await countSyncs(`
    import { sqliteFile } from ${JSON.stringify(join(import.meta.dir, 'sqlite-file.ts'))}
    const file = sqliteFile(folder + '/store.db', [${JSON.stringify(schema)}])
    const insert = 'INSERT INTO users VALUES (?, 1) RETURNING id'
    await file.write(insert, 'ana')
    mark('write')
    await file.write(insert, 'bob')
    mark('unsynced')
    for (const id of ['eve', 'ida']) await file.writeUnsynced(insert, id)
    mark('failed')
    await file.writeUnsynced(insert, 'ana').catch(() => {})
    mark('write again')
    await file.write(insert, 'joe')
    mark('rows')
    await file.all(insert, 'kim')
    mark('unsynced again')
    await file.writeUnsynced(insert, 'leo')
    mark('each')
    await file.writeEach('INSERT INTO users VALUES ($id, 1)', [{ id: 'max' }, { id: 'ned' }])
    mark('end')`)
    const unsynced = { unsynced: 0, failed: 0, 'unsynced again': 0 }
    expect(syncs).toEqual({ write: 1, ...unsynced, 'write again': 1, rows: 1, each: 1 })
  },
)

test('several processes can make a new file at the same time, and insert each row once', async () => {
  const script = `
    import { sqliteFile } from ${JSON.stringify(join(import.meta.dir, 'sqlite-file.ts'))}
    const file = sqliteFile(${JSON.stringify(path)}, [${JSON.stringify(schema)}])
    let inserted = 0
    for (let n = 0; n < 50; n++)
      inserted += await file.write('INSERT INTO users VALUES (?, 1) ON CONFLICT DO NOTHING', 'user ' + n)
    await file.close()
    console.log(inserted)`
  const processes = [1, 2, 3].map(() => Bun.spawn([process.execPath, '-e', script], { stderr: 'inherit' }))
  const counts = await Promise.all(processes.map(async ({ stdout }) => Number(await new Response(stdout).text())))
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(50)
  expect(await open().all('SELECT id FROM users')).toHaveLength(50)
})

test('only its owner may read the file, and what SQLite puts beside it', async () => {
  await open().write('INSERT INTO users VALUES (?, ?)', 'ana', 30)
  for (const suffix of ['', '-wal', '-shm']) expect(statSync(path + suffix).mode & 0o777).toBe(0o600)
})

test('only its owner may look into the folders that are made for the file', () => {
  const data = join(dirname(path), 'data')
  makePrivate(join(data, 'deeper', 'a.db'))
  for (const folder of [data, join(data, 'deeper')]) expect(statSync(folder).mode & 0o777).toBe(0o700)
})

test('a write waits while another process holds the lock, this process goes on, and then the write is stored', async () => {
  const file = open()
  await file.all('SELECT 1')
  using other = new Database(path)
  other.run('BEGIN IMMEDIATE')
  let settled = false
  const written = file.write('INSERT INTO users VALUES (?, ?)', 'ana', 30).finally(() => {
    settled = true
  })
  // Each turn of this loop shows that the process goes on; three of them outlast the wait inside SQLite.
  for (let turn = 0; turn < 3; turn++) {
    await Bun.sleep(60)
    expect(settled).toBe(false)
  }
  other.run('COMMIT')
  expect(await written).toBe(1)
  expect(await file.all('SELECT id FROM users')).toEqual([{ id: 'ana' }])
})

test('calls reject while the file cannot be opened, and work once it can', async () => {
  writeFileSync(join(folder.path, 'new'), 'a file where a folder is needed')
  const file = open()
  await expect(file.all('SELECT 1')).rejects.toThrow(path)
  rmSync(join(folder.path, 'new'))
  expect(await file.write('INSERT INTO users VALUES (?, ?)', 'ana', 30)).toBe(1)
})

test('a file that another version made is refused, by its name and with what to do; spaces do not matter', async () => {
  const file = open()
  await file.write('INSERT INTO users VALUES (?, ?)', 'ana', 30)
  await file.close()
  const spaced = sqliteFile(path, [schema.replace('(', '\n(')])
  expect(await spaced.all('SELECT id FROM users')).toEqual([{ id: 'ana' }])
  await spaced.close()
  const changed = sqliteFile(path, [schema.replace('age INTEGER', 'age REAL')])
  opened.push(changed)
  await expect(changed.all('SELECT 1')).rejects.toThrow(`another version of Posta made ${path}, with another table`)
})

test('once closed, calls reject', async () => {
  const file = open()
  await file.all('SELECT 1')
  await file.close()
  await expect(file.all('SELECT 1')).rejects.toThrow('closed')
})
