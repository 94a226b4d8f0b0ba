import type { SqliteFile } from '@posta/common/storage/sqlite-file.ts'
import type {
  DeadLetterFilter,
  DeadLetterPosition,
  DeadLetterSummary,
  DeadLetters,
  StoredDeadLetter,
} from './dead-letters.ts'

/** Each index ends in what a list is ordered by. */
export const schema = `
  CREATE TABLE IF NOT EXISTS dead_letters (
    id TEXT PRIMARY KEY NOT NULL,
    status TEXT NOT NULL,
    received_at_ms INTEGER NOT NULL,
    topic TEXT NOT NULL,
    "group" TEXT,
    type TEXT,
    user TEXT,
    operation TEXT,
    redrivable INTEGER NOT NULL,
    decision TEXT,
    summary TEXT NOT NULL,
    original TEXT NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS dead_letters_time ON dead_letters (received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_status ON dead_letters (status, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_topic ON dead_letters (topic, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_group ON dead_letters ("group", received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_type ON dead_letters (type, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_user ON dead_letters (user, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_operation ON dead_letters (operation, received_at_ms, id);
  CREATE INDEX IF NOT EXISTS dead_letters_unconfirmed ON dead_letters (id) WHERE status = 'open' AND decision IS NOT NULL;
  CREATE INDEX IF NOT EXISTS dead_letters_decided ON dead_letters (decision ->> 'at') WHERE status <> 'open';
`

const SUMMARY = `
  id, status, received_at_ms AS receivedAtMs, topic, "group", type, user, operation, redrivable, decision, summary`

const matching = (filter: DeadLetterFilter, more: string) =>
  [
    ...Object.keys(equalities(filter)).map((name) => `"${name}" = $${name}`),
    'received_at_ms >= $fromMs',
    'received_at_ms < $untilMs',
    more,
  ].join(' AND ')

const BEFORE = '(received_at_ms, id) < ($receivedAtMs, $id)'
const AFTER = '(received_at_ms, id) > ($receivedAtMs, $id)'

/** Every statement there is; a test asks SQLite that each finds its way by an index. */
export const statements = {
  add: `
    INSERT INTO dead_letters VALUES
      ($id, $status, $receivedAtMs, $topic, $group, $type, $user, $operation, $redrivable, $decision, $summary, $original)
    ON CONFLICT (id) DO NOTHING`,
  find: `SELECT ${SUMMARY}, original FROM dead_letters WHERE id IN (SELECT value FROM json_each(?))`,
  list: (filter: DeadLetterFilter) => `
    SELECT ${SUMMARY} FROM dead_letters WHERE ${matching(filter, BEFORE)}
    ORDER BY received_at_ms DESC, id DESC LIMIT $limit`,
  oldest: (filter: DeadLetterFilter) => `
    SELECT ${SUMMARY} FROM dead_letters WHERE ${matching(filter, AFTER)}
    ORDER BY received_at_ms, id LIMIT $limit`,
  count: (filter: DeadLetterFilter) => `
    SELECT count(*) AS count FROM (SELECT 1 FROM dead_letters WHERE ${matching(filter, AFTER)} LIMIT $limit)`,
  decide: `
    UPDATE dead_letters SET decision = (SELECT value -> 'decision' FROM json_each(?1) WHERE value ->> 'id' = dead_letters.id)
    WHERE id IN (SELECT value ->> 'id' FROM json_each(?1)) AND status = 'open' AND decision IS NULL
    RETURNING id`,
  confirm: `
    UPDATE dead_letters SET status = decision ->> 'to'
    WHERE id IN (SELECT value FROM json_each(?)) AND status = 'open' AND decision IS NOT NULL`,
  unconfirmed: `
    SELECT ${SUMMARY}, original FROM dead_letters INDEXED BY dead_letters_unconfirmed
    WHERE status = 'open' AND decision IS NOT NULL AND id > ? ORDER BY id LIMIT ?`,
  prune: `
    DELETE FROM dead_letters WHERE id IN (
      SELECT id FROM dead_letters WHERE status <> 'open' AND decision ->> 'at' < ? LIMIT ?)
    RETURNING id`,
}

type Value = string | number | null

/** Dead letters in a SQLite file. A row and the decision about it are one: what changes it is one statement. */
export function embeddedDeadLetters({ all, writeEach }: SqliteFile): DeadLetters {
  async function find(ids: readonly string[]): Promise<ReadonlyMap<string, StoredDeadLetter>> {
    const rows = await all<StoredRow>(statements.find, JSON.stringify(ids))
    return new Map(rows.map((row) => [row.id, toStored(row)]))
  }

  return {
    add: (deadLetters) => writeEach(statements.add, deadLetters.map(toRow)),

    get: async (id) => (await find([id])).get(id),

    find,

    async list(filter, { limit, before }) {
      const values = { ...valuesOf(filter), ...place(before ?? LAST), limit }
      return (await all<Row>(statements.list(filter), values)).map(toSummary)
    },

    async oldest(filter, { limit, after }) {
      const values = { ...valuesOf(filter), ...place(after ?? FIRST), limit }
      return (await all<Row>(statements.oldest(filter), values)).map(toSummary)
    },

    async count(filter, { atMost, after }) {
      const values = { ...valuesOf(filter), ...place(after ?? FIRST), limit: atMost }
      const [row] = await all<{ count: number }>(statements.count(filter), values)
      return row?.count ?? 0
    },

    async decide(decisions) {
      const rows = await all<{ id: string }>(statements.decide, JSON.stringify(decisions))
      return new Set(rows.map(({ id }) => id))
    },

    async confirm(decisions) {
      await all(statements.confirm, JSON.stringify(decisions.map(({ id }) => id)))
    },

    async unconfirmed({ limit, afterId = '' }) {
      return (await all<StoredRow>(statements.unconfirmed, afterId, limit)).map(toStored)
    },

    async prune(beforeMs, atMost) {
      return (await all(statements.prune, new Date(beforeMs).toISOString(), atMost)).length
    },
  }
}

/** An id is never empty, and nothing was received before 1970. */
const FIRST: DeadLetterPosition = { receivedAtMs: -1, id: '' }
const LAST: DeadLetterPosition = { receivedAtMs: Number.MAX_SAFE_INTEGER, id: '' }

const place = ({ receivedAtMs, id }: DeadLetterPosition) => ({ receivedAtMs, id })

function equalities({ fromMs, untilMs, redrivable, ...equal }: DeadLetterFilter): Record<string, Value> {
  const all = { ...equal, redrivable: redrivable === undefined ? undefined : Number(redrivable) }
  return Object.fromEntries(
    Object.entries(all).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  )
}

function valuesOf(filter: DeadLetterFilter): Record<string, Value> {
  const { fromMs = 0, untilMs = Number.MAX_SAFE_INTEGER } = filter
  return { ...equalities(filter), fromMs, untilMs }
}

type Columns = 'id' | 'status' | 'receivedAtMs' | 'topic' | 'group' | 'type' | 'user' | 'operation' | 'redrivable'
type Rest = Omit<DeadLetterSummary, Columns | 'decision'>

interface Row extends Pick<DeadLetterSummary, 'id' | 'status' | 'receivedAtMs' | 'topic'> {
  readonly group: string | null
  readonly type: string | null
  readonly user: string | null
  readonly operation: string | null
  readonly redrivable: number
  readonly decision: string | null
  readonly summary: string
}

interface StoredRow extends Row {
  readonly original: string
}

function toRow({ original, ...deadLetter }: StoredDeadLetter): Record<string, Value> {
  const { id, status, receivedAtMs, topic, group, type, user, operation, redrivable, decision, ...rest } = deadLetter
  return {
    id,
    status,
    receivedAtMs,
    topic,
    group: group ?? null,
    type: type ?? null,
    user: user ?? null,
    operation: operation ?? null,
    redrivable: Number(redrivable),
    decision: decision ? JSON.stringify(decision) : null,
    summary: JSON.stringify(rest satisfies Rest),
    original: JSON.stringify(original),
  }
}

function toSummary({
  group,
  type,
  user,
  operation,
  redrivable,
  decision,
  summary,
  ...columns
}: Row): DeadLetterSummary {
  const rest: Rest = JSON.parse(summary)
  const { id, status, receivedAtMs, topic } = columns
  return {
    ...rest,
    id,
    status,
    receivedAtMs,
    topic,
    group: group ?? undefined,
    type: type ?? undefined,
    user: user ?? undefined,
    operation: operation ?? undefined,
    redrivable: redrivable === 1,
    decision: decision === null ? undefined : JSON.parse(decision),
  }
}

function toStored(row: StoredRow): StoredDeadLetter {
  return { ...toSummary(row), original: JSON.parse(row.original) }
}
