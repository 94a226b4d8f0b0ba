import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Client, type Config, createClient, LibsqlError } from '@libsql/client'
import { TITLE } from '@posta/common/name.ts'
import { pause } from '@posta/common/service/backoff.ts'
import { ConfigError } from '@posta/common/service/config.ts'
import { filePath } from '@posta/common/service/file-url.ts'
import { makePrivate } from '@posta/common/storage/sqlite-file.ts'
import { drizzle, type LibSQLDatabase } from 'drizzle-orm/libsql'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { createWriter, type Writer } from './commit.ts'
import { explainFullOutbox } from './outbox.ts'
import * as schema from './schema.ts'
import { isLocked } from './transaction.ts'

/** For reads, and to build the statements of a write, which only the writer runs. */
export type Database = LibSQLDatabase<typeof schema>

export interface OpenDatabase {
  readonly database: Database
  /** Runs every write of this process. */
  readonly writer: Writer
  /** Resolves if the database answers. */
  ping(): Promise<void>
  /** Commits what is queued and closes. */
  close(): Promise<void>
}

/** SQLite's own wait for another process's lock stops the event loop. Longer waits are ours, and asynchronous. */
const LOCK_WAIT_MS = 20
const REMOTE_TIMEOUT_MS = 10_000
const OPEN_TIMEOUT_MS = 15_000

/**
 * Opens gateway's database and brings its tables up to date. Any number of processes may do so at the same time.
 * @param options.url `file:` with a path, or `libsql://` with `authToken`
 */
export async function openDatabase(options: { url: string; authToken?: string | undefined }): Promise<OpenDatabase> {
  const config = clientConfig(options)
  // The writer reconnects when it meets a lock, which would break off a read on the same client.
  const writing = createClient(config)
  const reading = createClient(config)
  const closeClients = () => {
    writing.close()
    reading.close()
  }
  await prepare(writing).catch((error: unknown) => {
    closeClients()
    throw error
  })
  const writer = createWriter(writing, { explain: explainFullOutbox })
  return {
    database: drizzle(reading, { schema }),
    writer,
    async ping() {
      await reading.execute('SELECT 1')
    },
    async close() {
      await writer.close()
      closeClients()
    },
  }
}

function clientConfig({ url, authToken }: { url: string; authToken?: string | undefined }): Config {
  if (!url.startsWith('file:')) {
    const fetchInTime = (request: Request) => fetch(request, { signal: AbortSignal.timeout(REMOTE_TIMEOUT_MS) })
    return { url, fetch: fetchInTime, ...(authToken === undefined ? {} : { authToken }) }
  }
  const path = filePath(url)
  // The file holds password hashes and signing keys.
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
      // Another process does the same: try again, and find it done.
      const isRace = isLocked(error) || isTakenMigration(error)
      if (!isRace || performance.now() - startedMs > OPEN_TIMEOUT_MS) throw error
      client.reconnect()
      await pause(5 + 20 * Math.random())
    }
  }
}

async function makeDurable(client: Client): Promise<void> {
  await client.execute('PRAGMA journal_mode = WAL')
  // A PRAGMA applies to one connection, and the client opens others at will: FULL must be SQLite's own default.
  const { rows } = await client.execute('PRAGMA synchronous')
  if (rows[0]?.[0] !== 2) throw new Error('The default of this build of SQLite is not synchronous = FULL.')
}

const MIGRATIONS = resolve(import.meta.dir, 'migrations')

/**
 * Keeps the table that drizzle's own migrator keeps. Unlike it, a migration inserts its row first, under its number: of
 * several processes one inserts it, and the transactions of the others fail. Migrations only add what earlier versions need not
 * know, so a database that a later version has migrated further serves this one too.
 * @throws ConfigError where the database has another migration than this version at the same place
 */
async function migrate(client: Client): Promise<void> {
  await client.execute(
    'CREATE TABLE IF NOT EXISTS __drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at numeric)',
  )
  const { rows } = await client.execute('SELECT hash FROM __drizzle_migrations ORDER BY id')
  const migrations = readMigrationFiles({ migrationsFolder: MIGRATIONS })
  if (migrations.some(({ hash }, index) => rows[index] && rows[index].hash !== hash))
    throw new ConfigError([
      `DATABASE_URL: another version of ${TITLE} made this database. Run that version, or name another`,
    ])
  for (const [index, { hash, folderMillis, sql }] of migrations.entries()) {
    if (index < rows.length) continue
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
