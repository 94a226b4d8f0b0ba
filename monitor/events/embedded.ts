import { SQLiteError } from 'bun:sqlite'
import { setImmediate } from 'node:timers/promises'
import { messages } from '@posta/common/messages/events.ts'
import type { SqliteFile, SqlRow } from '@posta/common/storage/sqlite-file.ts'
import type { EventFilter, Events, MinuteCount, StoredEvent, Tail } from './events.ts'
import { minuteOf } from './record.ts'

/** Each index ends in what its list is ordered by. The one of types also answers the counts, without reading the rows. */
export const schema = `
  CREATE TABLE IF NOT EXISTS events (
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    time_ms INTEGER NOT NULL,
    user TEXT,
    operation TEXT,
    duration_ms INTEGER,
    chain TEXT NOT NULL,
    seq INTEGER NOT NULL,
    previous_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    text TEXT NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX IF NOT EXISTS events_id ON events (id);
  CREATE UNIQUE INDEX IF NOT EXISTS events_chain ON events (chain, seq);
  CREATE INDEX IF NOT EXISTS events_time ON events (time_ms, id);
  CREATE INDEX IF NOT EXISTS events_type ON events (type, time_ms, id, duration_ms);
  CREATE INDEX IF NOT EXISTS events_user ON events (user, time_ms, id) WHERE user IS NOT NULL;
  CREATE INDEX IF NOT EXISTS events_operation ON events (operation, time_ms, id) WHERE operation IS NOT NULL;
`

const EVENT = `
  id, type, time_ms AS timeMs, user, operation, duration_ms AS durationMs, chain, seq, previous_hash AS previousHash, hash, text`

const where = (conditions: readonly (string | false | undefined)[]) => conditions.filter(Boolean).join(' AND ')

/** Every statement. A test asks SQLite whether each of them uses an index. */
export const statements = {
  insert: `
    INSERT INTO events
    VALUES ($id, $type, $timeMs, $user, $operation, $durationMs, $chain, $seq, $previousHash, $hash, $text)`,
  existing: 'SELECT id FROM events WHERE id IN (SELECT value FROM json_each(?))',
  tail: 'SELECT seq, hash FROM events WHERE chain = ? ORDER BY seq DESC LIMIT 1',
  get: `SELECT ${EVENT} FROM events WHERE id = ?`,
  list: ({ type, user, operation, fromMs }: EventFilter) => `
    SELECT ${EVENT} FROM events WHERE ${where([
      type !== undefined && 'type = $type',
      user !== undefined && 'user = $user',
      operation !== undefined && 'operation = $operation',
      fromMs !== undefined && 'time_ms >= $fromMs',
      '(time_ms, id) < ($untilMs, $untilId)',
    ])} ORDER BY time_ms DESC, id DESC LIMIT $limit`,
  after: `SELECT ${EVENT} FROM events WHERE chain = ? AND seq > ? ORDER BY seq LIMIT ?`,
  inChainOrder: `SELECT ${EVENT} FROM events WHERE (chain, seq) > (?, ?) ORDER BY chain, seq LIMIT ?`,
  prune: `
    DELETE FROM events WHERE chain = ?1 AND seq < min(?2, (SELECT min(seq) FROM events WHERE chain = ?1) + ?3)`,
  countByMinute: `
    SELECT minutes.value AS minute, types.value AS type, (
      SELECT count(*) FROM events
      WHERE type = types.value AND time_ms >= minutes.value * 60000 AND time_ms < (minutes.value + 1) * 60000
    ) AS count
    FROM json_each(?) AS types, json_each(?) AS minutes`,
  durations: `
    SELECT coalesce(sum(duration_ms), 0) AS totalMs, coalesce(max(duration_ms), 0) AS longestMs FROM events
    WHERE type IN (SELECT value FROM json_each(?)) AND time_ms >= ? AND time_ms < ?`,
}

const TYPES = Object.keys(messages)
const PAGE = 500

/** Events in a SQLite file that has `schema`. */
export function embeddedEvents({ all, write, writeEach }: SqliteFile): Events {
  return {
    async insert(events) {
      try {
        // With rows as wide as these, a statement each is faster than one over json_each.
        await writeEach(statements.insert, events.map(toRow))
        return 'stored'
      } catch (error) {
        if (error instanceof SQLiteError && error.code === 'SQLITE_CONSTRAINT_UNIQUE') return 'taken'
        throw error
      }
    },

    async existing(ids) {
      const rows = await all<{ id: string }>(statements.existing, JSON.stringify(ids))
      return new Set(rows.map(({ id }) => id))
    },

    async tail(chain) {
      const [tail] = await all<Tail>(statements.tail, chain)
      return tail
    },

    async get(id) {
      const [row] = await all<EventRow>(statements.get, id)
      return row && toEvent(row)
    },

    async list(filter, { limit, before }) {
      const { type = null, user = null, operation = null, fromMs = null, untilMs = Number.MAX_SAFE_INTEGER } = filter
      // No event of the time `untilMs` comes before it: an id is never empty.
      const end = before && before.timeMs < untilMs ? before : { timeMs: untilMs, id: '' }
      const values = { type, user, operation, fromMs, untilMs: end.timeMs, untilId: end.id, limit }
      return (await all<EventRow>(statements.list(filter), values)).map(toEvent)
    },

    async after(seqs, limit) {
      const found: EventRow[] = []
      for (const [chain, seq] of seqs) {
        if (found.length >= limit) break
        found.push(...(await all<EventRow>(statements.after, chain, seq, limit - found.length)))
      }
      return found.map(toEvent)
    },

    async *inChainOrder(after) {
      let { chain, seq } = after ?? { chain: '', seq: 0 }
      for (;;) {
        const page = await all<EventRow>(statements.inChainOrder, chain, seq, PAGE)
        const last = page.at(-1)
        if (!last) return
        yield page.map(toEvent)
        chain = last.chain
        seq = last.seq
        // SQLite answers synchronously: others get their turn between two pages.
        await setImmediate()
      }
    },

    prune: (chain, beforeSeq, atMost) => write(statements.prune, chain, beforeSeq, atMost),

    async countByMinute({ first, last }) {
      const minutes = Array.from({ length: last - first + 1 }, (_, index) => first + index)
      const rows = await all<MinuteCount>(statements.countByMinute, JSON.stringify(TYPES), JSON.stringify(minutes))
      return rows.filter(({ count }) => count > 0)
    },

    async durations({ first, last }) {
      const [row] = await all<{ totalMs: number; longestMs: number }>(
        statements.durations,
        JSON.stringify(TYPES),
        first * 60_000,
        (last + 1) * 60_000,
      )
      return row ?? { totalMs: 0, longestMs: 0 }
    },
  }
}

type Nullable<T> = {
  [Member in keyof T]: undefined extends T[Member] ? Exclude<T[Member], undefined> | null : T[Member]
}
type EventRow = Nullable<Omit<StoredEvent, 'minute'>>

function toRow(event: StoredEvent): SqlRow {
  const { user = null, operation = null, durationMs = null } = event
  return { ...event, user, operation, durationMs }
}

function toEvent(row: EventRow): StoredEvent {
  return {
    ...row,
    minute: minuteOf(row.timeMs),
    user: row.user ?? undefined,
    operation: row.operation ?? undefined,
    durationMs: row.durationMs ?? undefined,
  }
}
