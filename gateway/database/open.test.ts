import { expect, test } from 'bun:test'
import { statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createClient } from '@libsql/client'
import { sample } from '@posta/common/testing/sample.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import { generateSQLiteDrizzleJson } from 'drizzle-kit/api'
import { sql } from 'drizzle-orm'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { openTemporary } from '../testing/database.ts'
import journal from './migrations/meta/_journal.json'
import { openDatabase } from './open.ts'
import * as schema from './schema.ts'

test('processes that open a new database at the same time all get it, and each migration is applied once', async () => {
  using folder = temporaryFolder()
  const url = `file:${join(folder.path, 'gateway.db')}`
  const program = `
    const { openDatabase } = await import(${JSON.stringify(join(import.meta.dir, 'open.ts'))})
    const { database, close } = await openDatabase({ url: ${JSON.stringify(url)} })
    await database.query.users.findFirst()
    await close()`
  const processes = Array.from({ length: 5 }, () =>
    Bun.spawn([process.execPath, '-e', program], { stdout: 'inherit', stderr: 'inherit' }),
  )
  expect(await Promise.all(processes.map((each) => each.exited))).toEqual([0, 0, 0, 0, 0])

  const { database, close } = await openDatabase({ url })
  const applied = await database.all<{ hash: string }>(sql`SELECT hash FROM __drizzle_migrations ORDER BY id`)
  expect(files.length).toBeGreaterThan(0)
  expect(applied.map(({ hash }) => hash)).toEqual(files.map(({ hash }) => hash))
  await close()
})

test('the migrations make the tables and indexes of schema.ts', async () => {
  const last = String(journal.entries.at(-1)?.idx).padStart(4, '0')
  const snapshot = await Bun.file(join(import.meta.dir, `migrations/meta/${last}_snapshot.json`)).json()
  expect((await generateSQLiteDrizzleJson(schema)).tables).toEqual(snapshot.tables)
})

const files = readMigrationFiles({ migrationsFolder: join(import.meta.dir, 'migrations') })

/** A database as the first version left it: with the first migration alone, and an operation of ana's that is pending. */
async function makeFirstVersion(url: string): Promise<void> {
  const client = createClient({ url })
  const [first] = files
  await client.batch([
    'CREATE TABLE __drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric)',
    {
      sql: 'INSERT INTO __drizzle_migrations VALUES (1, ?, ?)',
      args: [first?.hash ?? '', first?.folderMillis ?? 0],
    },
    ...(first?.sql ?? []),
    INSERT_OF_FIRST_VERSION,
  ])
  client.close()
}
const INSERT_OF_FIRST_VERSION = `INSERT INTO operations (id, user_id, type, input, created_at, resend_at)
  VALUES (lower(hex(randomblob(16))), 'ana', '${sample.type}', '{}', 1, 2)`

test('a database of the first version gets the later migrations and keeps its rows; the first version can still write to it', async () => {
  using folder = temporaryFolder()
  const url = `file:${join(folder.path, 'gateway.db')}`
  await makeFirstVersion(url)
  const { database, writer, close } = await openDatabase({ url })
  await writer.write([sql.raw(INSERT_OF_FIRST_VERSION)])
  const rows = await database.select().from(schema.operations)
  expect(rows).toHaveLength(2)
  for (const row of rows)
    expect(row).toMatchObject({
      userId: 'ana',
      status: 'pending',
      progress: null,
      waiting: false,
      inputs: null,
      resends: 0,
    })
  const applied = await database.all<{ hash: string }>(sql`SELECT hash FROM __drizzle_migrations ORDER BY id`)
  expect(applied.map(({ hash }) => hash)).toEqual(files.map(({ hash }) => hash))
  await close()
})

test('a database that a later version has migrated further can be opened, and stays as it was', async () => {
  const opened = await openTemporary()
  const later = [
    sql`ALTER TABLE operations ADD later text`,
    sql`INSERT INTO __drizzle_migrations (id, hash) VALUES (99, 'later')`,
  ]
  await opened.writer.write(later)
  const again = await openDatabase({ url: opened.url })
  expect(await again.database.select().from(schema.operations)).toEqual([])
  await again.close()
  expect(await opened.database.all(sql`SELECT hash FROM __drizzle_migrations`)).toHaveLength(files.length + 1)
  await opened.close()
})

test('a database with a migration that this version lacks is refused, and stays as it was', async () => {
  const opened = await openTemporary()
  await opened.database.run(sql`UPDATE __drizzle_migrations SET hash = 'of another version' WHERE id = 1`)
  await expect(openDatabase({ url: opened.url })).rejects.toThrow('another version of Posta made this database')
  expect(await opened.database.all(sql`SELECT hash FROM __drizzle_migrations ORDER BY id LIMIT 1`)).toEqual([
    { hash: 'of another version' },
  ])
  await opened.close()
})

test('what was committed is there when the database is opened again, whatever characters its path has', async () => {
  using folder = temporaryFolder()
  const url = `file:${join(folder.path, 'de ep%20#?', 'gateway.db')}`
  const first = await openDatabase({ url })
  const row = { id: '1', email: 'ana@example.com', passwordHash: '', createdAt: 0 }
  await first.writer.write([first.database.insert(schema.users).values(row)])
  await first.close()

  const second = await openDatabase({ url })
  expect(await second.database.select({ id: schema.users.id }).from(schema.users)).toEqual([{ id: '1' }])
  await second.close()
})

test('the files are for their owner alone; writes go through a write-ahead log that is synced at every commit', async () => {
  const { url, writer, close } = await openTemporary()
  const path = url.slice('file:'.length)
  expect([path, `${path}-wal`].map((each) => statSync(each).mode & 0o777)).toEqual([0o600, 0o600])
  const [mode, synchronous] = await writer.write([sql`PRAGMA journal_mode`, sql`PRAGMA synchronous`])
  expect([mode?.rows[0]?.journal_mode, synchronous?.rows[0]?.synchronous]).toEqual(['wal', 2])
  await close()
})

test('a database that cannot be opened rejects', async () => {
  await expect(openDatabase({ url: `file:${tmpdir()}` })).rejects.toThrow()
})

test('a database that another process keeps locked is opened once the lock is gone', async () => {
  using folder = temporaryFolder()
  const url = `file:${join(folder.path, 'gateway.db')}`
  const other = createClient({ url })
  // The mode of a new file cannot be changed, nor a table be made, while it is locked.
  const lock = await other.transaction('write')
  const opening = openDatabase({ url })
  // Turns of the event loop in which it tries in vain.
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
  await lock.rollback()
  const { ping, close } = await opening
  await ping()
  other.close()
  await close()
})

test('a remote database is asked with the token that is given for it, and without one if there is none', async () => {
  const asked: (string | null)[] = []
  const bodies: string[] = []
  using server = Bun.serve({
    port: 0,
    async fetch(request) {
      asked.push(request.headers.get('Authorization'))
      bodies.push(await request.text())
      return new Response('Not allowed here.', { status: 403 })
    },
  })
  const url = server.url.origin
  await expect(openDatabase({ url, authToken: 'secret' })).rejects.toThrow('403')
  await expect(openDatabase({ url })).rejects.toThrow('403')
  expect(new Set(asked)).toEqual(new Set(['Bearer secret', null]))
  // How it keeps its files is its own affair.
  expect(bodies.join()).not.toContain('PRAGMA')
})

test('several in one process may open a new database at the same time', async () => {
  using folder = temporaryFolder()
  const url = `file:${join(folder.path, 'gateway.db')}`
  const opened = await Promise.all([1, 2, 3].map(() => openDatabase({ url })))
  for (const { ping, close } of opened) {
    await ping()
    await close()
  }
})

test('once it is closed, a database answers nobody', async () => {
  const { database, ping, close } = await openTemporary()
  await ping()
  await close()
  await expect(ping()).rejects.toThrow()
  await expect(database.query.users.findFirst().execute()).rejects.toThrow()
})

test('what is kept as JSON, or as true and false, is read as it was written, and what is not given has its default', async () => {
  const { database, writer, close } = await openTemporary()
  const operation = {
    id: 'op-1',
    userId: 'ana',
    type: sample.type,
    input: { amount: '1' },
    facts: { learned: 'something' },
    output: { amount: '2' },
    progress: { 1: { step: 'pay', status: 'waiting' as const, at: '', forSignal: true } },
    waiting: true,
    inputs: { cancel: 1 },
    createdAt: 0,
  }
  const key = {
    kty: 'OKP' as const,
    crv: 'Ed25519' as const,
    x: 'x',
    kid: 'a',
    alg: 'EdDSA' as const,
    use: 'sig' as const,
  }
  const signingKey = { kid: 'a', status: 'next' as const, privateJwk: { ...key, d: 'd' }, publicJwk: key, createdAt: 0 }
  await writer.write([
    database.insert(schema.operations).values(operation),
    database.insert(schema.signingKeys).values(signingKey),
    database.insert(schema.checkpoints).values({ id: 1, jwt: 'x', forgotten: true }),
    database.insert(schema.users).values({ id: 'ana', email: 'a@example.com', passwordHash: '', createdAt: 0 }),
  ])
  expect(await database.select().from(schema.operations)).toEqual([
    expect.objectContaining({ ...operation, status: 'pending', resends: 0 }),
  ])
  expect(await database.select().from(schema.signingKeys)).toMatchObject([signingKey])
  expect(await database.select().from(schema.checkpoints)).toEqual([{ id: 1, jwt: 'x', forgotten: true }])
  expect(await database.select({ role: schema.users.role }).from(schema.users)).toEqual([{ role: 'user' }])
  await close()
})

test('a query for what is pending goes by the index that holds nothing else', async () => {
  const { database, close } = await openTemporary()
  const query = sql`SELECT id FROM ${schema.operations} WHERE ${schema.isPending} AND resend_at <= 1`
  const [step] = await database.all<{ detail: string }>(sql`EXPLAIN QUERY PLAN ${query}`)
  expect(step?.detail).toContain('operations_pending_by_resend')
  await close()
})
