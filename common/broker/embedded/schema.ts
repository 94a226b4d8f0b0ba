import type { Database } from 'bun:sqlite'
import { topics } from '../../messages/topics.ts'
import { ConfigError } from '../../service/config.ts'
import { isLocked, openSqlite } from '../../storage/sqlite-file.ts'

const FORMAT = 1
/** How long anything waits for a lock that another process holds. */
export const LOCK_GIVE_UP_MS = 5000
/** SQLite waits for a lock synchronously, so it tries for a short time only, and the caller tries again. */
const LOCK_TRY_MS = 10

/**
 * Opens the broker's file, and makes what is missing: several processes may do so at once. It is synchronous, since it
 * happens once, at the start.
 * @throws Error that names the file, where it cannot be opened or is not a broker's
 */
export function connect(path: string): Database {
  const startMs = performance.now()
  for (;;) {
    try {
      return openSqlite(path, LOCK_TRY_MS, createTables)
    } catch (error) {
      if (error instanceof ConfigError) throw error
      if (!isLocked(error) || performance.now() - startMs > LOCK_GIVE_UP_MS)
        throw new Error(
          `The broker's file ${path} cannot be opened: ${error instanceof Error ? error.message : error}`,
          {
            cause: error,
          },
        )
    }
    Bun.sleepSync(LOCK_TRY_MS)
  }
}

/** Needs no lock where nothing is missing, so that no writer can hold up a start. */
function createTables(db: Database): void {
  const isEmpty = db.query('SELECT 1 FROM sqlite_schema').get() === null
  const format = db.query<{ user_version: number }, []>('PRAGMA user_version').get()?.user_version
  if (format === 0 && !isEmpty) throw new Error('it holds something else')
  if (format !== 0 && format !== FORMAT) throw new Error('another version of this program wrote it')
  // Before the first table, so that another process never sees tables without it.
  if (format === 0) db.run(`PRAGMA user_version = ${FORMAT}`)
  db.run('CREATE TABLE IF NOT EXISTS topic (name TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT, WITHOUT ROWID')
  db.run(
    `CREATE TABLE IF NOT EXISTS consumer (
      "group" TEXT, topic TEXT, next INTEGER NOT NULL, owner TEXT, epoch INTEGER NOT NULL, beat INTEGER NOT NULL,
      PRIMARY KEY ("group", topic)
    ) STRICT, WITHOUT ROWID`,
  )
  // Small columns come first: a large one spills over to pages that need not be read for them.
  for (const topic of Object.values(topics))
    db.run(
      `CREATE TABLE IF NOT EXISTS "${topic}" (
        offset INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key BLOB NOT NULL, headers TEXT NOT NULL,
        value BLOB NOT NULL
      ) STRICT`,
    )
}
