import { expect, test } from 'bun:test'
import { statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
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
  const files = readMigrationFiles({ migrationsFolder: join(import.meta.dir, 'migrations') })
  expect(files.length).toBeGreaterThan(0)
  expect(applied.map(({ hash }) => hash)).toEqual(files.map(({ hash }) => hash))
  await close()
})

test('the migrations make the tables and indexes of schema.ts', async () => {
  const last = String(journal.entries.at(-1)?.idx).padStart(4, '0')
  const snapshot = await Bun.file(join(import.meta.dir, `migrations/meta/${last}_snapshot.json`)).json()
  expect((await generateSQLiteDrizzleJson(schema)).tables).toEqual(snapshot.tables)
})

test('a database with a migration that this version lacks is refused, and stays as it was', async () => {
  const opened = await openTemporary()
  await opened.database.run(sql`UPDATE __drizzle_migrations SET hash = 'of another version'`)
  await expect(openDatabase({ url: opened.url })).rejects.toThrow('another version of Posta made this database')
  expect(await opened.database.all(sql`SELECT hash FROM __drizzle_migrations`)).toEqual([
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
