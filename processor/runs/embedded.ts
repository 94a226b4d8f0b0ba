import type { SqliteFile, SqlRow } from '@posta/common/storage/sqlite-file.ts'
import * as v from 'valibot'
import { Head, NewRun, type Run, type RunFilter, RunInput, RunRecord, type Runs } from './runs.ts'

/**
 * What never changes of a run is `body`, JSON, and the columns that it is looked up by. `head` is JSON too; what is looked up
 * of it is generated, so that the two cannot differ. A run's records and inputs go with it, in the same statement.
 */
export const schema = `
  CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY NOT NULL,
    user TEXT NOT NULL,
    type TEXT NOT NULL,
    version INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    head TEXT NOT NULL,
    state TEXT NOT NULL AS (head ->> 'state') STORED,
    holder TEXT AS (head ->> 'holder') STORED,
    epoch INTEGER NOT NULL AS (head ->> 'epoch') STORED,
    due_at_ms INTEGER NOT NULL AS (head ->> 'dueAtMs') STORED,
    body TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS runs_unheld ON runs (type, version, epoch > 0, due_at_ms, id, user)
    WHERE state IN ('ready', 'waiting', 'stuck');
  CREATE INDEX IF NOT EXISTS runs_held ON runs (holder, id) WHERE holder IS NOT NULL;
  CREATE INDEX IF NOT EXISTS runs_ended ON runs (created_at, id) WHERE state = 'ended';
  CREATE INDEX IF NOT EXISTS runs_of_user ON runs (user, id);
  CREATE INDEX IF NOT EXISTS runs_of_type ON runs (type, id);
  CREATE INDEX IF NOT EXISTS runs_in_state ON runs (state, id);

  CREATE TABLE IF NOT EXISTS run_records (
    run TEXT NOT NULL,
    n INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (run, n)
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE IF NOT EXISTS run_inputs (
    run TEXT NOT NULL,
    user TEXT NOT NULL,
    name TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    noticed INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (run, user, name)
  ) STRICT;
  CREATE INDEX IF NOT EXISTS run_inputs_by_time ON run_inputs (noticed, at_ms, run, user, name);

  CREATE TRIGGER IF NOT EXISTS runs_deleted AFTER DELETE ON runs BEGIN
    DELETE FROM run_records WHERE run = OLD.id;
    DELETE FROM run_inputs WHERE run = OLD.id;
  END;

  CREATE TABLE IF NOT EXISTS run_beats (holder TEXT PRIMARY KEY NOT NULL, beat INTEGER NOT NULL) STRICT;
  CREATE TABLE IF NOT EXISTS run_paused_types (type TEXT PRIMARY KEY NOT NULL) STRICT;
`

/** Sorts after every id. */
const END = '\u{10ffff}'
/** Each kind, once for runs that were begun and once for new ones: what the index `runs_unheld` begins with. */
const GROUPS = 'json_each($kinds) AS kind CROSS JOIN (SELECT 0 AS begun UNION ALL SELECT 1)'
const OF_GROUP = `runs AS runs_of_kind INDEXED BY runs_unheld
  WHERE state IN ('ready', 'waiting', 'stuck')
    AND type = kind.value ->> 'type' AND version = kind.value ->> 'version' AND (epoch > 0) = begun`
/** Of the indexes that a page could go by, the first finds the fewest runs. */
const pageFilters = {
  user: { index: 'INDEXED BY runs_of_user', condition: 'user = $user' },
  state: { index: 'INDEXED BY runs_in_state', condition: 'state = $state' },
  type: { index: 'INDEXED BY runs_of_type', condition: 'type = $type' },
  createdBefore: { index: '', condition: 'created_at < $createdBefore' },
}
const AS_TAKEN = 'id = $id AND epoch = $epoch AND holder IS $holder'

/** All statements. A test checks that each uses an index. Lists are passed as JSON, so that one statement is enough. */
export const statements = {
  create: `
    INSERT INTO runs (id, user, type, version, created_at, head, body)
    SELECT value ->> 'id', value ->> 'user', value ->> 'type', value ->> 'version', value ->> 'createdAt',
      value ->> 'head', value ->> 'body'
    FROM json_each(?) WHERE true ON CONFLICT DO NOTHING RETURNING id`,
  get: 'SELECT head, body FROM runs WHERE id = ?',
  getMany: 'SELECT head, body FROM runs WHERE id IN (SELECT value FROM json_each(?))',
  append: `
    INSERT INTO run_records (run, n, body)
    SELECT value ->> 'run', value ->> 'n', value ->> 'body' FROM json_each(?)
    WHERE true ON CONFLICT DO NOTHING RETURNING run, n`,
  history: 'SELECT body FROM run_records WHERE run = ? ORDER BY n',
  // Of each kind, begun or not, the first ones: what is of no such kind, or is paused, is not read.
  due: `
    SELECT head, body FROM ${GROUPS} CROSS JOIN runs
    WHERE (begun OR kind.value ->> 'type' NOT IN (SELECT type FROM run_paused_types))
      AND runs.rowid IN (
        SELECT rowid FROM ${OF_GROUP} AND due_at_ms <= $nowMs AND user NOT IN (SELECT value FROM json_each($exceptUsers))
        ORDER BY due_at_ms, id LIMIT $limit
      )`,
  nextDueMs: `
    SELECT min((SELECT min(due_at_ms) FROM ${OF_GROUP} AND due_at_ms > $nowMs)) AS dueAtMs FROM ${GROUPS}`,
  take: `
    UPDATE runs SET head = json_set(head, '$.state', 'running', '$.holder', $taker, '$.epoch', epoch + 1)
    WHERE ${AS_TAKEN} RETURNING head, body`,
  put: `UPDATE runs SET head = $head WHERE ${AS_TAKEN} RETURNING id`,
  holders: `
    SELECT holder, coalesce((SELECT beat FROM run_beats WHERE run_beats.holder = runs.holder), -1) AS beat,
      json_group_array(id) AS runs
    FROM runs WHERE holder > '' GROUP BY holder`,
  beat: 'INSERT INTO run_beats (holder, beat) VALUES (?, ?) ON CONFLICT (holder) DO UPDATE SET beat = excluded.beat',
  forget: 'DELETE FROM run_beats WHERE holder = ?',
  addInputs: `
    INSERT INTO run_inputs (run, user, name, at_ms, noticed, body)
    SELECT value ->> 'run', value ->> 'user', value ->> 'name', value ->> 'atMs', 0, value ->> 'body' FROM json_each(?)
    WHERE true ON CONFLICT DO NOTHING`,
  inputs: 'SELECT body FROM run_inputs WHERE run IN (SELECT value FROM json_each(?))',
  unnoticed: `
    SELECT body FROM run_inputs
    WHERE noticed = 0 AND (at_ms, run, user, name) > ($atMs, $run, $user, $name)
    ORDER BY at_ms, run, user, name LIMIT $limit`,
  notice: `
    UPDATE run_inputs SET noticed = 1
    WHERE (run, user, name) IN (SELECT value ->> 'run', value ->> 'user', value ->> 'name' FROM json_each(?))`,
  pause: 'INSERT INTO run_paused_types (type) VALUES (?) ON CONFLICT DO NOTHING',
  resume: 'DELETE FROM run_paused_types WHERE type = ?',
  paused: 'SELECT type FROM run_paused_types',
  page(filter: RunFilter) {
    const given = Object.entries(pageFilters).filter(([name]) => name in asked(filter))
    const index = given[0]?.[1].index ?? ''
    return `
      SELECT head, body FROM runs ${index}
      WHERE ${['id < $before', ...given.map(([, { condition }]) => condition)].join(' AND ')}
      ORDER BY id DESC LIMIT $limit`
  },
  deleteRuns: `
    DELETE FROM runs WHERE id IN (
      SELECT id FROM runs INDEXED BY runs_ended WHERE state = 'ended' AND created_at < ? ORDER BY created_at LIMIT ?
    ) RETURNING id`,
  deleteInputs: `
    DELETE FROM run_inputs WHERE rowid IN (
      SELECT rowid FROM run_inputs
      WHERE noticed IN (0, 1) AND at_ms < ? AND NOT EXISTS (SELECT 1 FROM runs WHERE id = run) LIMIT ?
    )`,
}

/** Runs in a SQLite file. What only finds runs quickly is written without a sync. */
export function embeddedRuns({ all, write, writeUnsynced }: SqliteFile): Runs {
  return {
    async create(runs) {
      const rows = await all<{ id: string }>(statements.create, JSON.stringify(runs.map(toRow)))
      return new Set(rows.map(({ id }) => id))
    },

    async get(id) {
      return toRun(await all<RunRow>(statements.get, id))
    },

    async getMany(ids) {
      return toRuns(await all<RunRow>(statements.getMany, JSON.stringify(ids)))
    },

    async append(appended) {
      const given = appended.map(({ run, record }) => ({ run, n: record.n, body: JSON.stringify(record) }))
      const rows = await all<{ run: string; n: number }>(statements.append, JSON.stringify(given))
      const added = new Set(rows.map(({ run, n }) => `${n} ${run}`))
      return given.map(({ run, n }) => added.has(`${n} ${run}`))
    },

    async history(id) {
      const rows = await all<{ body: string }>(statements.history, id)
      return rows.map(({ body }) => v.parse(RunRecord, JSON.parse(body)))
    },

    async due({ nowMs, kinds, exceptUsers, limit }) {
      const lists = { kinds: JSON.stringify(kinds), exceptUsers: JSON.stringify(exceptUsers) }
      const found = toRuns(await all<RunRow>(statements.due, { nowMs, limit, ...lists }))
      return found.sort((a, b) => a.head.dueAtMs - b.head.dueAtMs || (a.id < b.id ? -1 : 1)).slice(0, limit)
    },

    async nextDueMs(nowMs, kinds) {
      const [next] = await all<{ dueAtMs: number | null }>(statements.nextDueMs, {
        nowMs,
        kinds: JSON.stringify(kinds),
      })
      return next?.dueAtMs ?? undefined
    },

    async take(run, taker) {
      return toRun(await writeUnsynced<RunRow>(statements.take, { ...asTaken(run), taker }))
    },

    async put(held, head) {
      const rows = await writeUnsynced(statements.put, { ...asTaken(held), head: JSON.stringify(head) })
      return rows.length === 1
    },

    async holders() {
      const rows = await all<{ holder: string; beat: number; runs: string }>(statements.holders)
      return rows.map(({ runs, ...row }) => ({ ...row, runs: v.parse(Ids, JSON.parse(runs)) }))
    },

    async beat(holder, beat) {
      await writeUnsynced(statements.beat, holder, beat)
    },

    async forget(holder) {
      await writeUnsynced(statements.forget, holder)
    },

    async addInputs(inputs) {
      const given = inputs.map((input) => ({ ...input, payload: undefined, body: JSON.stringify(input) }))
      await write(statements.addInputs, JSON.stringify(given))
    },

    async inputs(runs) {
      return toInputs(await all<{ body: string }>(statements.inputs, JSON.stringify(runs)))
    },

    async unnoticed(limit, { atMs, run, user, name } = FIRST) {
      return toInputs(await all<{ body: string }>(statements.unnoticed, { limit, atMs, run, user, name }))
    },

    async notice(inputs) {
      await writeUnsynced(statements.notice, JSON.stringify(inputs.map(({ run, user, name }) => ({ run, user, name }))))
    },

    async pause(type, paused) {
      await write(paused ? statements.pause : statements.resume, type)
    },

    async paused() {
      const rows = await all<{ type: string }>(statements.paused)
      return rows.map(({ type }) => type)
    },

    async page(filter, { limit, before = END }) {
      return toRuns(await all<RunRow>(statements.page(filter), { ...asked(filter), limit, before }))
    },

    async deleteBefore(createdAt, atMost) {
      const deleted = await all(statements.deleteRuns, createdAt, atMost)
      return deleted.length + (await write(statements.deleteInputs, Date.parse(createdAt), atMost - deleted.length))
    },
  }
}

/** Before every input. */
const FIRST = { atMs: -1, run: '', user: '', name: '' }

const Ids = v.array(v.string())

interface RunRow {
  readonly head: string
  readonly body: string
}

function toRow({ head, ...run }: Run) {
  const { id, user, type, version, createdAt } = run
  return { id, user, type, version, createdAt, head: JSON.stringify(head), body: JSON.stringify(run) }
}

const toRuns = (rows: readonly RunRow[]): Run[] =>
  rows.map(({ head, body }) => ({ ...v.parse(NewRun, JSON.parse(body)), head: v.parse(Head, JSON.parse(head)) }))

const toRun = (rows: readonly RunRow[]): Run | undefined => toRuns(rows)[0]

const toInputs = (rows: readonly { body: string }[]): RunInput[] =>
  rows.map(({ body }) => v.parse(RunInput, JSON.parse(body)))

const asTaken = ({ id, head }: Run) => ({ id, epoch: head.epoch, holder: head.holder ?? null })

/** What a filter asks for, by the names of its members. */
const asked = (filter: RunFilter): SqlRow =>
  Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined))
