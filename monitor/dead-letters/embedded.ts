import type { SqliteFile, SqlRow } from '@posta/common/storage/sqlite-file.ts'
import type {
  DeadLetterFilter,
  DeadLetterPosition,
  DeadLetterSummary,
  DeadLetters,
  StoredDeadLetter,
} from './dead-letters.ts'

/**
 * `summary` is JSON; what is looked up by follows from it, so that the two cannot disagree. Each index ends in what a list
 * is ordered by. `original` comes last: a list does not read it.
 */
export const schema = `
  CREATE TABLE IF NOT EXISTS dead_letters (
    id TEXT PRIMARY KEY NOT NULL,
    summary TEXT NOT NULL,
    status TEXT NOT NULL AS (summary ->> 'status') STORED,
    received_at_ms INTEGER NOT NULL AS (summary ->> 'receivedAtMs') STORED,
    topic TEXT NOT NULL AS (summary ->> 'topic') STORED,
    "group" TEXT AS (summary ->> 'group') STORED,
    type TEXT AS (summary ->> 'type') STORED,
    user TEXT AS (summary ->> 'user') STORED,
    operation TEXT AS (summary ->> 'operation') STORED,
    redrivable INTEGER NOT NULL AS (summary ->> 'redrivable') STORED,
    decided_at TEXT AS (summary ->> '$.decision.at') STORED,
    original TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS dead_letters_time ON dead_letters (received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_status ON dead_letters (status, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_topic ON dead_letters (topic, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_group ON dead_letters ("group", received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_type ON dead_letters (type, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_user ON dead_letters (user, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_operation ON dead_letters (operation, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_unconfirmed ON dead_letters (id) WHERE status = 'open' AND decided_at IS NOT NULL;
  CREATE INDEX IF NOT EXISTS dead_letters_decided ON dead_letters (decided_at) WHERE status <> 'open';
`

const matching = (filter: DeadLetterFilter, position: string) =>
  [
    ...Object.keys(equalities(filter)).map((name) => `"${name}" = $${name}`),
    'received_at_ms >= $fromMs',
    'received_at_ms < $untilMs',
    position,
  ].join(' AND ')

const BEFORE = '(received_at_ms, id) < ($receivedAtMs, $id)'
const AFTER = '(received_at_ms, id) > ($receivedAtMs, $id)'

/** Every statement there is; a test asks SQLite whether each uses an index. */
export const statements = {
  add: 'INSERT INTO dead_letters (id, summary, original) VALUES ($id, $summary, $original) ON CONFLICT (id) DO NOTHING',
  find: 'SELECT summary, original FROM dead_letters WHERE id IN (SELECT value FROM json_each(?))',
  list: (filter: DeadLetterFilter) => `
    SELECT summary FROM dead_letters WHERE ${matching(filter, BEFORE)}
    ORDER BY received_at_ms DESC, id DESC LIMIT $limit`,
  oldest: (filter: DeadLetterFilter) => `
    SELECT summary FROM dead_letters WHERE ${matching(filter, AFTER)}
    ORDER BY received_at_ms, id LIMIT $limit`,
  count: (filter: DeadLetterFilter) => `
    SELECT count(*) AS count FROM (SELECT 1 FROM dead_letters WHERE ${matching(filter, AFTER)} LIMIT $limit)`,
  decide: `
    UPDATE dead_letters SET summary = json_set(summary, '$.decision', json((
      SELECT value -> 'decision' FROM json_each(?1) WHERE value ->> 'id' = dead_letters.id)))
    WHERE id IN (SELECT value ->> 'id' FROM json_each(?1)) AND status = 'open' AND decided_at IS NULL
    RETURNING id`,
  confirm: `
    UPDATE dead_letters SET summary = json_set(summary, '$.status', summary ->> '$.decision.to')
    WHERE id IN (SELECT value ->> 'id' FROM json_each(?)) AND status = 'open' AND decided_at IS NOT NULL`,
  unconfirmed: `
    SELECT summary, original FROM dead_letters INDEXED BY dead_letters_unconfirmed
    WHERE status = 'open' AND decided_at IS NOT NULL AND id > ? ORDER BY id LIMIT ?`,
  prune: `
    DELETE FROM dead_letters WHERE id IN (
      SELECT id FROM dead_letters WHERE status <> 'open' AND decided_at < ? LIMIT ?)`,
}

/** Dead letters in a SQLite file. A dead letter and the decision about it are one row, so each change is one statement. */
export function embeddedDeadLetters({ all, write, writeEach }: SqliteFile): DeadLetters {
  async function find(ids: readonly string[]): Promise<ReadonlyMap<string, StoredDeadLetter>> {
    const found = (await all<StoredRow>(statements.find, JSON.stringify(ids))).map(toStored)
    return new Map(found.map((deadLetter) => [deadLetter.id, deadLetter]))
  }

  async function page(sql: string, filter: DeadLetterFilter, position: DeadLetterPosition, limit: number) {
    return (await all<SummaryRow>(sql, valuesOf(filter, position, limit))).map(toSummary)
  }

  return {
    // Originals are large: a statement for each is ten times as fast as one over json_each.
    add: (deadLetters) => writeEach(statements.add, deadLetters.map(toRow)),

    get: async (id) => (await find([id])).get(id),

    find,

    list: (filter, { limit, before = LAST }) => page(statements.list(filter), filter, before, limit),

    oldest: (filter, { limit, after = FIRST }) => page(statements.oldest(filter), filter, after, limit),

    async count(filter, { atMost, after = FIRST }) {
      const [row] = await all<{ count: number }>(statements.count(filter), valuesOf(filter, after, atMost))
      return row?.count ?? 0
    },

    async decide(decisions) {
      const rows = await all<{ id: string }>(statements.decide, JSON.stringify(decisions))
      return new Set(rows.map(({ id }) => id))
    },

    async confirm(decisions) {
      await write(statements.confirm, JSON.stringify(decisions))
    },

    async unconfirmed({ limit, afterId = '' }) {
      return (await all<StoredRow>(statements.unconfirmed, afterId, limit)).map(toStored)
    },

    prune: (beforeMs, atMost) => write(statements.prune, new Date(beforeMs).toISOString(), atMost),
  }
}

/** An id is never empty, and nothing was received before 1970. */
const FIRST: DeadLetterPosition = { receivedAtMs: -1, id: '' }
const LAST: DeadLetterPosition = { receivedAtMs: Number.MAX_SAFE_INTEGER, id: '' }

function equalities({ fromMs, untilMs, ...equal }: DeadLetterFilter): SqlRow {
  return Object.fromEntries(
    Object.entries(equal).flatMap(([name, value]) =>
      value === undefined ? [] : [[name, typeof value === 'boolean' ? Number(value) : value]],
    ),
  )
}

function valuesOf(filter: DeadLetterFilter, { receivedAtMs, id }: DeadLetterPosition, limit: number) {
  const { fromMs = 0, untilMs = Number.MAX_SAFE_INTEGER } = filter
  return { ...equalities(filter), fromMs, untilMs, receivedAtMs, id, limit }
}

interface SummaryRow {
  readonly summary: string
}

interface StoredRow extends SummaryRow {
  readonly original: string
}

function toRow({ original, ...summary }: StoredDeadLetter): SqlRow {
  return { id: summary.id, summary: JSON.stringify(summary), original: JSON.stringify(original) }
}

function toSummary({ summary }: SummaryRow): DeadLetterSummary {
  return JSON.parse(summary)
}

function toStored(row: StoredRow): StoredDeadLetter {
  return { ...toSummary(row), original: JSON.parse(row.original) }
}
