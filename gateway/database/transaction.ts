import { type Client, type InValue, LibsqlError, type ResultSet } from '@libsql/client'
import { backoff } from '@posta/common/service/backoff.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { SQLWrapper } from 'drizzle-orm'
import { SQLiteAsyncDialect } from 'drizzle-orm/sqlite-core'

/** An `sql` text or a query of drizzle's query builder, not yet run. */
export type Statement = SQLWrapper

const MAX_LOCKED_MS = 5000

/**
 * Runs the statements as one write transaction: all of them or none. Resolves to a result per statement.
 * @throws Problem `overloaded`, where another process holds the lock for 5 s
 */
export async function transact(
  client: Pick<Client, 'batch' | 'reconnect'>,
  statements: readonly Statement[],
  monotonicMs: () => number,
): Promise<ResultSet[]> {
  const rendered = statements.map(render)
  const startedMs = monotonicMs()
  const attempts = backoff({ firstMs: 2, longestMs: 100 })
  for (;;) {
    try {
      return await client.batch(rendered, 'write')
    } catch (error) {
      if (!isLocked(error)) throw error
      // After one SQLITE_BUSY every further COMMIT on the connection would fail.
      client.reconnect()
      if (monotonicMs() - startedMs > MAX_LOCKED_MS)
        throw new Problem('overloaded', 'The database is locked.', { retryAfterS: 1, cause: error })
      await attempts.pause()
    }
  }
}

const dialect = new SQLiteAsyncDialect()

function render(statement: Statement): { sql: string; args: InValue[] } {
  const { sql, params } = dialect.sqlToQuery(statement.getSQL())
  return { sql, args: params.map(asValue) }
}

function asValue(param: unknown): InValue {
  if (param === null || param instanceof Uint8Array) return param
  if (typeof param === 'string' || typeof param === 'number' || typeof param === 'bigint') return param
  throw new TypeError('SQLite has no type for a parameter of this statement.')
}

/** Whether another process holds the lock of the database. */
export function isLocked(error: unknown): boolean {
  return error instanceof LibsqlError && (error.code === 'SQLITE_BUSY' || error.code === 'SQLITE_LOCKED')
}
