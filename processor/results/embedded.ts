import { RateTable } from '@posta/common/operations/rates.ts'
import { sqliteFile } from '@posta/common/storage/sqlite-file.ts'
import * as v from 'valibot'
import { type Position, Result, ResultSummary, type Results } from './results.ts'

/** A result is stored as JSON. The indexed columns are generated from it, so that they cannot differ from it. */
const schema = `
  CREATE TABLE IF NOT EXISTS results (
    id TEXT PRIMARY KEY NOT NULL,
    body TEXT NOT NULL,
    rates TEXT NOT NULL,
    user TEXT NOT NULL AS (body ->> 'user') STORED,
    day TEXT NOT NULL AS (body ->> 'day') STORED,
    counted_usd_e8 INTEGER NOT NULL AS (body ->> 'countedUsdE8') STORED,
    completed_at TEXT NOT NULL AS (body ->> 'completedAt') STORED,
    error_code TEXT AS (body ->> '$.error.code') STORED,
    stored_base TEXT AS (iif(body ->> 'type' = 'store-rates' AND body ->> 'status' = 'succeeded', rates ->> 'base', NULL)) STORED,
    stored_date TEXT AS (rates ->> 'date') STORED
  ) STRICT;
  CREATE INDEX IF NOT EXISTS results_counted ON results (user, day, counted_usd_e8);
  CREATE INDEX IF NOT EXISTS results_of_user ON results (user, completed_at, id);
  CREATE INDEX IF NOT EXISTS results_by_time ON results (completed_at, id);
  CREATE INDEX IF NOT EXISTS results_rates ON results (stored_base, stored_date, completed_at) WHERE stored_base IS NOT NULL;
`

/** All queries. A test checks that each uses an index. Lists are passed as JSON, so that one statement is enough. */
export const queries = {
  find: 'SELECT body FROM results WHERE id IN (SELECT value FROM json_each(?1))',
  counted: `
    SELECT asked.key AS position, (
      SELECT coalesce(sum(counted_usd_e8), 0) FROM results
      WHERE user = asked.value ->> 'user' AND day = asked.value ->> 'day'
    ) AS counted
    FROM json_each(?1) AS asked`,
  append: `
    INSERT INTO results (id, body, rates)
    SELECT value ->> 'id', json_remove(value, '$.rates'), value -> 'rates' FROM json_each(?1)
    WHERE key < (
      SELECT coalesce(min(given.key), json_array_length(?1))
      FROM json_each(?1) AS given JOIN results AS existing ON existing.id = given.value ->> 'id'
    )`,
  replaceDeadLettered: `UPDATE results SET body = ?2, rates = ?3 WHERE id = ?1 AND error_code = 'dead-lettered'`,
  get: 'SELECT body, rates FROM results WHERE id = ?1',
  page: `
    SELECT body FROM results WHERE (completed_at, id) < (?1, ?2)
    ORDER BY completed_at DESC, id DESC LIMIT ?3`,
  pageOfUser: `
    SELECT body FROM results WHERE user = ?4 AND (completed_at, id) < (?1, ?2)
    ORDER BY completed_at DESC, id DESC LIMIT ?3`,
  newestRates: `
    SELECT rates, completed_at AS completedAt FROM results WHERE stored_base = ?1
    ORDER BY stored_date DESC, completed_at DESC LIMIT 1`,
  deleteBefore: `
    DELETE FROM results WHERE id IN (
      SELECT id FROM results WHERE completed_at < ?1 ORDER BY completed_at, id LIMIT ?2
    )`,
}

/** After every other position. */
const END: Position = { completedAt: '~', id: '' }

/** Results in a SQLite file; other processes may use it at the same time. */
export function openEmbeddedResults(path: string): Results {
  const file = sqliteFile(path, [schema])
  const all = <Row>(sql: string, ...values: (string | number)[]) =>
    file.run((database) => database.query<Row, typeof values>(sql).all(...values))
  const write = (sql: string, ...values: (string | number)[]) =>
    file.run((database) => database.query(sql).run(...values).changes)

  return {
    async find(ids) {
      const rows = await all<{ body: string }>(queries.find, JSON.stringify(ids))
      return new Map(rows.map(toSummary).map((result) => [result.id, result]))
    },
    async countedUsdE8(userDays) {
      const rows = await all<{ position: number; counted: number }>(queries.counted, JSON.stringify(userDays))
      const counted = new Map(rows.map(({ position, counted }) => [position, counted]))
      return userDays.map((_, position) => counted.get(position) ?? 0)
    },
    append: (results) => write(queries.append, JSON.stringify(results)),
    async replaceDeadLettered({ rates, ...summary }) {
      const values = [summary.id, JSON.stringify(summary), JSON.stringify(rates)]
      return (await write(queries.replaceDeadLettered, ...values)) === 1
    },
    async get(id) {
      const [row] = await all<{ body: string; rates: string }>(queries.get, id)
      return row && v.parse(Result, { ...JSON.parse(row.body), rates: JSON.parse(row.rates) })
    },
    async page({ user, limit, before = END }) {
      const values = [before.completedAt, before.id, limit]
      const rows = await (user === undefined
        ? all<{ body: string }>(queries.page, ...values)
        : all<{ body: string }>(queries.pageOfUser, ...values, user))
      return rows.map(toSummary)
    },
    async newestRates(base) {
      const [row] = await all<{ rates: string; completedAt: string }>(queries.newestRates, base)
      return row && { table: v.parse(RateTable, JSON.parse(row.rates)), completedAt: row.completedAt }
    },
    deleteBefore: (completedAt, atMost) => write(queries.deleteBefore, completedAt, atMost),
    async ping() {
      await all(queries.get, '')
    },
    close: file.close,
  }
}

function toSummary({ body }: { body: string }): ResultSummary {
  return v.parse(ResultSummary, JSON.parse(body))
}
