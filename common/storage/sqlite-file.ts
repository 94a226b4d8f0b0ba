import { Database, SQLiteError } from 'bun:sqlite'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { TITLE } from '../name.ts'
import { backoff } from '../service/backoff.ts'
import { ConfigError } from '../service/config.ts'

/** While SQLite itself waits for the file's lock, this whole process stands still. So that wait is short. */
const BUSY_TIMEOUT_MS = 50
/** How long a call waits for the lock in all. Between two attempts the process goes on with other work. */
const LOCK_PATIENCE_MS = 5000
/** The write-ahead log is cut back to this size after it has grown. */
const JOURNAL_BYTES = 64 * 1024 * 1024

type SqlValue = string | number | null
/** Values by the names of a statement's parameters: `user` is bound to `$user`. */
export type SqlRow = Readonly<Record<string, SqlValue>>
/** What a statement's parameters are bound to: in the order of its `?`, or by name. */
type SqlValues = SqlValue[] | [SqlRow]

/** FULL syncs every commit. NORMAL syncs none of them, only checkpoints. */
type Synchronous = 'FULL' | 'NORMAL'

/**
 * A SQLite file that any number of processes use at the same time. It is opened, and made where it does not exist, by the
 * first call. A call that fails to open it rejects, and the next call tries again.
 *
 * - Each call is one statement or one transaction: all of it is durable when the call resolves (but see `writeUnsynced`), and
 *   none of it is stored when the call rejects.
 * - While another process holds the file's lock a call waits for up to 5 s, and then rejects with SQLite's error.
 */
export interface SqliteFile {
  /** The rows that a statement answers. */
  all<Row>(sql: string, ...values: SqlValues): Promise<Row[]>
  /** Resolves to how many rows a statement changed. */
  write(sql: string, ...values: SqlValues): Promise<number>
  /** Runs a statement once for each row, in their order, in one transaction. */
  writeEach(sql: string, rows: readonly SqlRow[]): Promise<void>
  /**
   * Runs a statement that writes, without a sync, which takes most of the time of `write`. Every process sees at once what it
   * wrote, and a crash of any process leaves it. A power cut may undo it, with all that was written after the last sync; it
   * never undoes one write and leaves a later one. Resolves to the rows that the statement answers.
   */
  writeUnsynced<Row>(sql: string, ...values: SqlValues): Promise<Row[]>
  close(): Promise<void>
}

/**
 * @param schemas statements that create what does not exist yet. A file whose tables differ from them is refused
 * @example
 * const file = sqliteFile('data/example.db', ['CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY) STRICT'])
 * await file.write('INSERT INTO users VALUES (?)', 'ana')
 * const users = await file.all<{ id: string }>('SELECT id FROM users WHERE id = $id', { id: 'ana' })
 */
export function sqliteFile(path: string, schemas: readonly string[]): SqliteFile {
  let opened: Database | undefined
  let closed = false
  // As openSqlite leaves it.
  let synchronous: Synchronous = 'FULL'

  function database(): Database {
    if (closed) throw new Error('The store has been closed.')
    if (opened) return opened
    opened = openSqlite(path, BUSY_TIMEOUT_MS, (fresh) => {
      // Together, with one sync: all tables are there, or none.
      fresh
        .transaction(() => {
          refuseOtherTables(path, fresh, schemas)
          for (const schema of schemas) fresh.run(schema)
        })
        .immediate()
    })
    return opened
  }

  /** Set before each call, so that a failure here leaves the call undone, never done without its sync. */
  function databaseAt(level: Synchronous): Database {
    const ready = database()
    if (synchronous !== level) ready.run(`PRAGMA synchronous = ${level}`)
    synchronous = level
    return ready
  }

  async function run<Answer>(use: (database: Database) => Answer, level: Synchronous = 'FULL'): Promise<Answer> {
    const startedMs = performance.now()
    const attempts = backoff({ firstMs: 5, longestMs: 40 })
    for (;;) {
      try {
        return use(databaseAt(level))
      } catch (error) {
        if (!isLocked(error) || performance.now() - startedMs > LOCK_PATIENCE_MS) throw error
        await attempts.pause()
      }
    }
  }

  return {
    all: <Row>(sql: string, ...values: SqlValues) => run((db) => db.query<Row, SqlValues>(sql).all(...values)),
    write: (sql, ...values) => run((db) => db.query<unknown, SqlValues>(sql).run(...values).changes),
    writeEach: (sql, rows) =>
      run((db) => {
        const statement = db.query<unknown, SqlRow>(sql)
        db.transaction(() => {
          for (const row of rows) statement.run(row)
        }).immediate()
      }),
    writeUnsynced: <Row>(sql: string, ...values: SqlValues) =>
      run((db) => db.query<Row, SqlValues>(sql).all(...values), 'NORMAL'),
    async close() {
      closed = true
      opened?.close()
    },
  }
}

/**
 * Opens a SQLite file, and makes it where it does not exist. What is committed in it is synced.
 * @param prepare makes its tables. Where it throws, the file is closed
 * @throws ConfigError where this process may not write there
 */
export function openSqlite(path: string, busyTimeoutMs: number, prepare: (database: Database) => void): Database {
  makePrivate(path)
  const database = new Database(path, { create: true, strict: true })
  try {
    database.run(`PRAGMA busy_timeout = ${busyTimeoutMs}`)
    database.run('PRAGMA journal_mode = WAL')
    database.run('PRAGMA synchronous = FULL')
    database.run(`PRAGMA journal_size_limit = ${JOURNAL_BYTES}`)
    prepare(database)
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/** SQLITE_BUSY, or an extension of it: another process holds the lock. */
export function isLocked(error: unknown): boolean {
  return error instanceof SQLiteError && ((error.errno ?? 0) & 0xff) === 5
}

/** @throws ConfigError where a table or an index exists, but not as the schemas make it: another version made the file */
function refuseOtherTables(path: string, file: Database, schemas: readonly string[]): void {
  using fresh = new Database(':memory:')
  for (const schema of schemas) fresh.run(schema)
  const expected = new Map(definitions(fresh))
  for (const [name, definition] of definitions(file)) {
    if ((expected.get(name) ?? definition) === definition) continue
    throw new ConfigError([
      `DATA_DIR: another version of ${TITLE} made ${path}, with another table or index ${name}. Run that version, or name another folder`,
    ])
  }
}

/** What a database holds, by name. How a statement is spaced does not matter. */
function definitions(database: Database): [name: string, definition: string][] {
  const rows = database.query<{ name: string; sql: string }, []>(
    'SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL',
  )
  return rows.all().map(({ name, sql }) => [name, sql.replace(/\s+/g, ' ')])
}

/**
 * Makes the file and its folder, unless they exist, so that their owner alone may read them. SQLite gives the files beside it the same mode.
 * @throws ConfigError where this process may not write there
 */
export function makePrivate(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    closeSync(openSync(path, 'a', 0o600))
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? error.code : error
    throw new ConfigError([`DATA_DIR, or the URL of a file: ${path} cannot be made or written to (${reason})`], {
      cause: error,
    })
  }
}
