import { LibsqlError } from '@libsql/client'
import { Problem } from '@posta/common/service/problem.ts'
import { type SQL, sql } from 'drizzle-orm'
import { outbox } from './schema.ts'

// How many messages may wait in the outbox while the broker is away. They wait on disk: the relay reads one batch at a
// time. Operations are refused first, so that users can log in and out for much longer.

/**
 * With this many rows no more operations are accepted: one hour of 28 per second. With its operation, which is kept anyway,
 * a row takes 0.5 KB for an operation of a few members and 13 KB for one with 13 KB of facts: 50 MB, or 1.3 GB. Once the broker is
 * back these are sent within 8 s, or 90 s, on a small machine.
 */
export const MAX_ROWS_WITH_OPERATIONS = 100_000

/**
 * With this many rows nothing is done that needs an event, such as a login. Logins alone, which cost a hash each, fill the
 * room between the two bounds in an hour with 70 per second, and take 100 MB.
 */
export const MAX_ROWS = 350_000

/** How many rows wait, by two look-ups: rows are added in the order of their ids and deleted from the lowest, without gaps. */
export const outboxRows = sql`(SELECT coalesce((SELECT max(id) FROM ${outbox}) - (SELECT min(id) FROM ${outbox}) + 1, 0))`

export async function countOutbox(database: { get<Row>(query: SQL): Promise<Row> }): Promise<number> {
  const { rows } = await database.get<{ rows: number }>(sql`SELECT ${outboxRows} AS rows`)
  return rows
}

/** The value for `event`. Where there is no room it is NULL, which a CHECK refuses together with the whole transaction. */
export const eventIfRoom = (event: string) => sql`iif(${outboxRows} < ${MAX_ROWS}, ${event}, NULL)`

/** Names the reason where that CHECK refused. */
export function explainFullOutbox(error: unknown): Problem | undefined {
  if (!(error instanceof LibsqlError && error.message.includes('outbox_request_or_event'))) return undefined
  return new Problem('overloaded', 'Too many messages wait to be sent already.', { retryAfterS: 10, cause: error })
}
