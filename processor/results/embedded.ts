import type { SqliteFile } from '@posta/common/storage/sqlite-file.ts'
import * as v from 'valibot'
import { Outcome, type Position, Result, ResultSummary, type Results } from './results.ts'

/** A result is stored as JSON. The indexed columns are generated from it, so that they cannot differ from it. */
export const schema = `
  CREATE TABLE IF NOT EXISTS results (
    id TEXT PRIMARY KEY NOT NULL,
    body TEXT NOT NULL,
    facts TEXT,
    user TEXT NOT NULL AS (body ->> 'user') STORED,
    type TEXT NOT NULL AS (body ->> 'type') STORED,
    limit_name TEXT AS (body ->> '$.counts.limit') STORED,
    limit_period TEXT AS (body ->> '$.counts.period') STORED,
    amount INTEGER AS (body ->> '$.counts.amount') STORED,
    lookup_key TEXT AS (body ->> '$.lookup.key') STORED,
    lookup_order TEXT AS (body ->> '$.lookup.order') STORED,
    completed_at TEXT AS (body ->> 'completedAt') STORED,
    status TEXT NOT NULL AS (body ->> 'status') STORED,
    error_code TEXT AS (body ->> '$.error.code') STORED
  ) STRICT;
  CREATE INDEX IF NOT EXISTS results_counts ON results (user, limit_name, limit_period, amount) WHERE amount IS NOT NULL;
  CREATE INDEX IF NOT EXISTS results_of_user ON results (user, completed_at, id);
  CREATE INDEX IF NOT EXISTS results_by_time ON results (completed_at, id);
  CREATE INDEX IF NOT EXISTS results_lookup ON results (type, lookup_key, lookup_order, completed_at) WHERE lookup_key IS NOT NULL;
`

/** All queries. A test checks that each uses an index. Lists are passed as JSON, so that one statement is enough. */
export const queries = {
  find: 'SELECT body FROM results WHERE id IN (SELECT value FROM json_each(?1))',
  used: `
    SELECT asked.key AS position, (
      SELECT coalesce(sum(amount), 0) FROM results
      WHERE user = asked.value ->> 'user' AND limit_name = asked.value ->> 'limit'
        AND limit_period = asked.value ->> 'period' AND amount IS NOT NULL
    ) AS used
    FROM json_each(?1) AS asked`,
  append: `
    INSERT INTO results (id, body, facts)
    SELECT value ->> 'id', json_remove(value, '$.facts'), value -> 'facts' FROM json_each(?1)
    WHERE key < (
      SELECT coalesce(min(given.key), json_array_length(?1))
      FROM json_each(?1) AS given JOIN results AS existing ON existing.id = given.value ->> 'id'
    )`,
  replaceDeadLettered: `UPDATE results SET body = ?2, facts = ?3 WHERE id = ?1 AND error_code = 'dead-lettered'`,
  settle: `
    UPDATE results SET body = value ->> 1, facts = value ->> 2 FROM json_each(?1)
    WHERE results.id = value ->> 0 AND status = 'running'`,
  get: 'SELECT body, facts FROM results WHERE id = ?1',
  page: `
    SELECT body FROM results WHERE (completed_at, id) < (?1, ?2)
    ORDER BY completed_at DESC, id DESC LIMIT ?3`,
  pageOfUser: `
    SELECT body FROM results WHERE user = ?4 AND (completed_at, id) < (?1, ?2)
    ORDER BY completed_at DESC, id DESC LIMIT ?3`,
  newest: `
    SELECT body, facts FROM results WHERE type = ?1 AND lookup_key = ?2
    ORDER BY lookup_order DESC, completed_at DESC LIMIT 1`,
  deleteBefore: `
    DELETE FROM results WHERE id IN (
      SELECT id FROM results WHERE completed_at < ?1 ORDER BY completed_at, id LIMIT ?2
    )`,
}

/** After every other position. */
const END: Position = { completedAt: '~', id: '' }

/** Results in a SQLite file. */
export function embeddedResults({ all, write }: Pick<SqliteFile, 'all' | 'write'>): Results {
  return {
    async find(ids) {
      const rows = await all<{ body: string }>(queries.find, JSON.stringify(ids))
      return new Map(rows.map(toSummary).map((result) => [result.id, result]))
    },
    async used(allowances) {
      const rows = await all<{ position: number; used: number }>(queries.used, JSON.stringify(allowances))
      const used = new Map(rows.map((row) => [row.position, row.used]))
      return allowances.map((_, position) => used.get(position) ?? 0)
    },
    append: (results) => write(queries.append, JSON.stringify(results)),
    replaceDeadLettered: async (result) => (await write(queries.replaceDeadLettered, ...toRow(result))) === 1,
    async settle(outcomes) {
      await write(queries.settle, JSON.stringify(outcomes.map(toRow)))
    },
    async get(id) {
      return toResult(await all<ResultRow>(queries.get, id))
    },
    async page({ user, limit, before = END }) {
      const values = [before.completedAt, before.id, limit]
      const rows = await (user === undefined
        ? all<{ body: string }>(queries.page, ...values)
        : all<{ body: string }>(queries.pageOfUser, ...values, user))
      return rows.map(({ body }) => v.parse(Outcome, JSON.parse(body)))
    },
    async newest(type, key) {
      return toResult(await all<ResultRow>(queries.newest, type, key))
    },
    deleteBefore: (completedAt, atMost) => write(queries.deleteBefore, completedAt, atMost),
  }
}

function toRow({ facts, ...summary }: Result): [id: string, body: string, facts: string | null] {
  return [summary.id, JSON.stringify(summary), facts === undefined ? null : JSON.stringify(facts)]
}

interface ResultRow {
  readonly body: string
  readonly facts: string | null
}

function toResult([row]: readonly ResultRow[]): Result | undefined {
  return (
    row && v.parse(Result, { ...JSON.parse(row.body), facts: row.facts === null ? undefined : JSON.parse(row.facts) })
  )
}

function toSummary({ body }: { body: string }): ResultSummary {
  return v.parse(ResultSummary, JSON.parse(body))
}
