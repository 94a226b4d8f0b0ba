import { Database, SQLiteError } from 'bun:sqlite'
import { closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { ConfigError } from '../service/config.ts'

/** A wait for the file's lock inside SQLite stops the whole process: it stays short, and what is longer waits outside. */
const BUSY_TIMEOUT_MS = 50
const BUSY_PATIENCE_MS = 5000
/** What the log beside the file is cut back to after it has grown. */
const JOURNAL_BYTES = 64 * 1024 * 1024

/** The file of an embedded store, opened at its first use; other processes may use it at the same time. */
export interface SqliteFile {
  /**
   * Runs `use`, again while another process holds the file's lock: it must be one statement or one transaction, so that it
   * went in whole or not at all. What it wrote is synced when this resolves. @throws after 5 s of a lock
   */
  run<Answer>(use: (database: Database) => Answer): Promise<Answer>
  close(): Promise<void>
}

/** @param schemas statements that make what does not exist yet */
export function sqliteFile(path: string, schemas: readonly string[]): SqliteFile {
  let opened: Database | undefined
  let closed = false

  function database(): Database {
    if (closed) throw new Error('The store has been closed.')
    if (opened) return opened
    makePrivate(path)
    const fresh = new Database(path, { create: true, strict: true })
    try {
      fresh.run(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`)
      fresh.run('PRAGMA journal_mode = WAL')
      fresh.run('PRAGMA synchronous = FULL')
      fresh.run(`PRAGMA journal_size_limit = ${JOURNAL_BYTES}`)
      for (const schema of schemas) fresh.run(schema)
    } catch (error) {
      fresh.close()
      throw error
    }
    opened = fresh
    return fresh
  }

  return {
    async run(use) {
      const startedMs = performance.now()
      for (;;) {
        try {
          return use(database())
        } catch (error) {
          const busy = error instanceof SQLiteError && error.code?.startsWith('SQLITE_BUSY')
          if (!busy || performance.now() - startedMs > BUSY_PATIENCE_MS) throw error
          await Bun.sleep(5 + Math.random() * 20)
        }
      }
    },
    async close() {
      closed = true
      opened?.close()
    },
  }
}

/**
 * Makes the file, unless it is there, for its owner alone; what SQLite puts beside it gets the same mode.
 * @throws ConfigError where this process may not
 */
export function makePrivate(path: string): void {
  try {
    mkdirSync(dirname(path), { recursive: true })
    closeSync(openSync(path, 'a', 0o600))
  } catch (error) {
    const reason = error instanceof Error && 'code' in error ? error.code : error
    throw new ConfigError([`DATA_DIR, or the URL of a file: ${path} cannot be made or written to (${reason})`], {
      cause: error,
    })
  }
}
