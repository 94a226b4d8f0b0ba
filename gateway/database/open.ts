import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Client, type Config, createClient, LibsqlError } from '@libsql/client'
import { filePath } from '@posta/common/service/file-url.ts'
import { makePrivate } from '@posta/common/storage/sqlite-file.ts'
import { drizzle, type LibSQLDatabase } from 'drizzle-orm/libsql'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { createWriter, type Writer } from './commit.ts'
import { explainFullOutbox } from './outbox.ts'
import * as schema from './schema.ts'
import { isLocked } from './transaction.ts'

/** For reads, and to build statements for the writer. It must not run a write itself. */
export type Database = LibSQLDatabase<typeof schema>

export interface OpenDatabase {
  readonly database: Database
  /** All writes of this process. */
  readonly writer: Writer
  /** Resolves if the database answers. */
  ping(): Promise<void>
  /** Commits what is queued and closes. */
  close(): Promise<void>
}

/** How long the event loop may stand still for another process's lock; beyond that, writer and opener wait asynchronously. */
const LOCK_WAIT_MS = 20
const REMOTE_TIMEOUT_MS = 10_000
const OPEN_TIMEOUT_MS = 15_000

/**
 * Opens gateway's database and brings its tables up to date. Any number of processes may do so at once.
 * @param url `file:` with a path, or `libsql://` with `authToken`.
 */
export async function openDatabase(options: { url: string; authToken?: string | undefined }): Promise<OpenDatabase> {
  const config = clientConfig(options)
  // A writer reconnects when it meets a lock, which would cut off a read on the same client.
  const writing = createClient(config)
  const reading = createClient(config)
  const close = () => {
    writing.close()
    reading.close()
  }
  try {
    await prepare(writing)
  } catch (error) {
    close()
    throw error
  }
  const writer = createWriter(writing, { explain: explainFullOutbox })
  return {
    database: drizzle(reading, { schema }),
    writer,
    async ping() {
      await reading.execute('SELECT 1')
    },
    async close() {
      await writer.close()
      close()
    },
  }
}

function clientConfig({ url, authToken }: { url: string; authToken?: string | undefined }): Config {
  if (!url.startsWith('file:')) {
    const fetchInTime = (request: Request) => fetch(request, { signal: AbortSignal.timeout(REMOTE_TIMEOUT_MS) })
    return { url, fetch: fetchInTime, ...(authToken === undefined ? {} : { authToken }) }
  }
  const path = filePath(url)
  // It holds password hashes and signing keys.
  makePrivate(path)
  return { url: pathToFileURL(path).href, timeout: LOCK_WAIT_MS, concurrency: 1 }
}

async function prepare(client: Client): Promise<void> {
  const startedMs = performance.now()
  for (;;) {
    try {
      if (client.protocol === 'file') await makeDurable(client)
      await migrate(client)
      return
    } catch (error) {
      // Another process is doing the same: look again.
      const isRace = isLocked(error) || isTakenMigration(error)
      if (!isRace || performance.now() - startedMs > OPEN_TIMEOUT_MS) throw error
      client.reconnect()
      await Bun.sleep(5 + 20 * Math.random())
    }
  }
}

async function makeDurable(client: Client): Promise<void> {
  await client.execute('PRAGMA journal_mode = WAL')
  // A PRAGMA holds for one connection, and connections come and go: each must begin with it.
  const { rows } = await client.execute('PRAGMA synchronous')
  if (rows[0]?.[0] !== 2) throw new Error('This build of SQLite does not begin with synchronous = FULL.')
}

const MIGRATIONS = resolve(import.meta.dir, 'migrations')

/** As drizzle-kit keeps it; but a migration's row comes first and has a number, so that only one process can have applied it. */
async function migrate(client: Client): Promise<void> {
  await client.execute(
    'CREATE TABLE IF NOT EXISTS __drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric)',
  )
  const { rows } = await client.execute('SELECT max(created_at) FROM __drizzle_migrations')
  const newestMs = Number(rows[0]?.[0] ?? 0)
  for (const [index, { hash, folderMillis, sql }] of readMigrationFiles({ migrationsFolder: MIGRATIONS }).entries()) {
    if (folderMillis <= newestMs) continue
    await client.migrate([
      {
        sql: 'INSERT INTO __drizzle_migrations (id, hash, created_at) VALUES (?, ?, ?)',
        args: [index + 1, hash, folderMillis],
      },
      ...sql,
    ])
  }
}

function isTakenMigration(error: unknown): boolean {
  return error instanceof LibsqlError && error.message.includes('__drizzle_migrations.id')
}
