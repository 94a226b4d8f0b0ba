import { LibsqlError } from '@libsql/client'
import { Problem } from '@posta/common/service/problem.ts'
import { type SQL, sql } from 'drizzle-orm'
import { outbox } from './schema.ts'

// What may wait while the broker is away: on disk, since the relay reads one batch at a time. Operations are refused
// first, so that people can log in and out for long after that.

/**
 * From here on no operation is accepted: an hour of 28 a second. With its operation, which is kept anyhow, a row takes
 * 0.5 KB for a conversion and 13 KB for a rate table: 50 MB, or 1.3 GB where all are tables. When the broker is back these
 * are sent within 8 s, or 90 s, on a small machine: whoever was accepted waits for little more than the broker was away.
 */
export const MAX_ROWS_WITH_OPERATIONS = 100_000

/**
 * From here on nothing is done whose event could not be kept, a login among it. Logins alone, which cost a hash each,
 * fill what is left to events in an hour with 70 a second, and take 100 MB.
 */
export const MAX_ROWS = 350_000

/** How many rows wait, by two look-ups: their ids have no gaps, since they are given in order and go from the lowest. */
export const outboxRows = sql`(SELECT coalesce((SELECT max(id) FROM ${outbox}) - (SELECT min(id) FROM ${outbox}) + 1, 0))`

export async function countOutbox(database: { get<Row>(query: SQL): Promise<Row> }): Promise<number> {
  const { rows } = await database.get<{ rows: number }>(sql`SELECT ${outboxRows} AS rows`)
  return rows
}

/** The value for `event`: where there is no room NULL, which a CHECK refuses, and all of the event's transaction with it. */
export const eventIfRoom = (event: string) => sql`iif(${outboxRows} < ${MAX_ROWS}, ${event}, NULL)`

/** For the writer: what that CHECK means. */
export function explainFullOutbox(error: unknown): Problem | undefined {
  if (!(error instanceof LibsqlError && error.message.includes('outbox_request_or_event'))) return undefined
  return new Problem('overloaded', 'Too much waits to be sent already.', { retryAfterS: 10, cause: error })
}
