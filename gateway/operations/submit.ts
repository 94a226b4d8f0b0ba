// 1. Accepts an operation and stores it with its row in the outbox. Next: relay.ts
import { type Contracts, catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import type { Caller } from '@posta/common/service/auth.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { traceparent } from '@posta/common/service/trace.ts'
import { and, eq, type SQL, sql } from 'drizzle-orm'
import * as v from 'valibot'
import type { Bulk } from '../database/bulk.ts'
import type { Writer } from '../database/commit.ts'
import type { Database } from '../database/open.ts'
import { MAX_ROWS_WITH_OPERATIONS, outboxRows } from '../database/outbox.ts'
import { operations } from '../database/schema.ts'
import type { Sources } from '../preparers/preparer.ts'
import { countUse, defaultQuotas, exceeded, type Quota, type Quotas, roomOf } from '../quotas.ts'
import { describe, type Operation, type OperationRow, toOperation, toRequest } from './operation.ts'
import { type Preparers, prepare } from './prepare.ts'
import { RESEND_AFTER_MS } from './resend.ts'

/** Those that wait for an answer do not count. */
export const MAX_PENDING_PER_USER = 100
/** Of those that wait for an answer. No more that may come to wait are accepted while, with these, more could. */
const MAX_WAITING_PER_USER = 1000

const IdempotencyKey = v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,255}$/))

/** A type of the catalog, and an input that fits its contract. */
export const Submission: v.GenericSchema<unknown, { type: OperationType; input: Record<string, unknown> }> = v.variant(
  'type',
  Object.values(catalog).map((contract) =>
    v.pipe(
      v.strictObject({ type: v.literal(contract.type), input: contract.input }),
      v.description(describe(contract)),
    ),
  ),
)

export type Submit = (asked: {
  user: string
  /** Whose quotas count: those of a user where it is not given. */
  role?: Caller['role']
  submission: unknown
  idempotencyKey?: string | undefined
}) => Promise<Operation>

/**
 * Accepts an operation: validates it, has its facts prepared, and stores it in one transaction with the outbox row
 * from which the relay makes the request. An idempotency key that was used before is answered with the operation of then;
 * nothing is prepared for it.
 *
 * @throws Problem `invalid-input` (also for a type that is not offered), `malformed-request` (the key), `idempotency-key-reused`, `too-many-pending`, `quota-exceeded`,
 * `payload-too-large`, `overloaded`, and those of the preparer. None of them uses the key up.
 * @param options.offered the types that this gateway offers
 * @param options.contracts, options.preparers those of the catalog by default
 * @param options.onAccepted is called once an operation is stored; not for a key that was used before.
 */
export function createSubmit(options: {
  database: Database
  writer: Writer
  sources: Sources
  offered: ReadonlySet<OperationType>
  onAccepted: (type: OperationType) => void
  deps: Pick<Deps, 'now' | 'newId'>
  quotas?: Quotas
  contracts?: Contracts
  preparers?: Preparers
  maxOutboxRows?: number
}): Submit {
  const { database, writer, sources, offered, onAccepted, deps, preparers } = options
  const { quotas = defaultQuotas, maxOutboxRows = MAX_ROWS_WITH_OPERATIONS } = options
  const contracts: Contracts = options.contracts ?? catalog
  const insert = writer.bulk(insertOperations(maxOutboxRows, quotas))

  async function findByKey(user: string, key: string | undefined): Promise<OperationRow | undefined> {
    if (key === undefined) return undefined
    const [row] = await database
      .select()
      .from(operations)
      .where(and(eq(operations.userId, user), eq(operations.idempotencyKey, key)))
      .limit(1)
    return row
  }

  return async ({ user, role = 'user', submission, idempotencyKey }) => {
    if (idempotencyKey !== undefined && !v.is(IdempotencyKey, idempotencyKey))
      throw new Problem('malformed-request', 'The idempotency key must have 1 to 255 visible ASCII characters.')
    const { type, input } = checkInput(Submission, submission)
    const earlier = await findByKey(user, idempotencyKey)
    if (earlier) return replay(earlier, type, input)

    if (!offered.has(type)) throw notOffered(contracts[type])
    const facts = await prepare(type, input, user, sources, { preparers })
    const createdAt = deps.now()
    const { signals = {} } = contracts[type]
    const row = {
      id: deps.newId(),
      userId: user,
      type,
      input,
      facts: facts ?? null,
      traceparent: traceparent() ?? null,
      idempotencyKey: idempotencyKey ?? null,
      createdAt,
      resendAt: createdAt + RESEND_AFTER_MS,
    }
    // A message that is too large is refused here, before it enters the outbox.
    const { value } = toRequest(row)
    const bytes = value?.byteLength ?? 0
    const outcome = await insert({ ...row, role, bytes, mayWait: Object.keys(signals).length > 0 })
    if (outcome === 'stored') {
      onAccepted(type)
      return { id: row.id, type, status: 'pending', input, createdAt: new Date(createdAt).toISOString() }
    }
    const winner = await findByKey(user, idempotencyKey)
    if (winner) return replay(winner, type, input)
    if (outcome === 'outbox full')
      throw new Problem('overloaded', 'Too many operations wait to be sent.', { retryAfterS: 10 })
    const use = { user, role, atMs: createdAt }
    const isExceeded = await exceeded(database, quotas, use, [
      ['submissions-per-minute', 1],
      ['submissions-per-day', 1],
      ['submitted-bytes-per-day', bytes],
    ])
    if (isExceeded) throw isExceeded
    throw new Problem(
      'too-many-pending',
      `You have too many operations pending: at most ${MAX_PENDING_PER_USER}, and ${MAX_WAITING_PER_USER} that wait for an answer. Wait until some are done.`,
      { retryAfterS: 1 },
    )
  }
}

/** Both inputs come from the same schema, so they are equal whatever order and case the clients wrote them in. */
function replay(row: OperationRow, type: string, input: Record<string, unknown>): Operation {
  if (row.type === type && Bun.deepEquals(row.input, input)) return toOperation(row)
  throw new Problem(
    'idempotency-key-reused',
    'This idempotency key belongs to an operation with another type or input.',
  )
}

/** The problem of a type whose required variable is not set. */
function notOffered({ type, requires }: Contract): Problem {
  const detail = `${type} is not offered here${requires === undefined ? '' : `: ${requires} is not set`}`
  return new Problem('invalid-input', undefined, { errors: [{ pointer: '#/type', detail }] })
}

/** `bytes`: of its request. `mayWait`: it is of a type that has signals. */
type NewRow = typeof operations.$inferInsert & {
  readonly role: Caller['role']
  readonly bytes: number
  readonly mayWait: boolean
}
type Outcome = 'stored' | 'outbox full' | 'refused'

// Two counts, since each has an index that holds nothing else.
const pending = sql`(
  SELECT count(*) FROM operations AS other WHERE other.user_id = new.value->>'userId' AND other.status = 'pending')`
const waiting = sql`(
  SELECT count(*) FROM operations AS other
  WHERE other.user_id = new.value->>'userId' AND other.status = 'pending' AND other.waiting = 1)`

const isStored = sql`EXISTS (SELECT 1 FROM operations WHERE operations.id = new.value->>'id')`

/**
 * Inserts operations and their outbox rows, and counts them. All gateways together exceed no bound, since each insert is one transaction.
 * `refused`: the idempotency key is taken, the user has too many operations pending, or has used up a quota.
 */
const insertOperations = (maxOutboxRows: number, quotas: Quotas): Bulk<NewRow, Outcome> => ({
  statements(rows) {
    const json = JSON.stringify(rows)
    const uses = JSON.stringify(rows.map(({ id, userId, createdAt, bytes }) => ({ id, userId, createdAt, bytes })))
    const used = (amount: SQL) => sql`
      SELECT value->>'userId' AS user, max(value->>'createdAt') AS at_ms, ${amount} AS used
      FROM json_each(${uses}) AS new WHERE ${isStored} GROUP BY value->>'userId'`
    const room = (quota: Quota) =>
      roomOf(quotas, quota, {
        user: sql`new.value->>'userId'`,
        role: sql`new.value->>'role'`,
        atMs: sql`new.value->>'createdAt'`,
      })
    const mayWait = rows.some((row) => row.mayWait)
    return [
      sql`SELECT ${outboxRows} AS waiting`,
      sql`
        INSERT INTO operations (id, user_id, type, input, facts, traceparent, idempotency_key, created_at, resend_at)
        SELECT value->>'id', value->>'userId', value->>'type', value->'input', nullif(value->'facts', 'null'), value->>'traceparent',
          value->>'idempotencyKey', value->>'createdAt', value->>'resendAt'
        FROM (
          SELECT key, value, row_number() OVER of_user AS nth, sum(value->>'bytes') OVER of_user AS bytes
          FROM json_each(${json}) WINDOW of_user AS (PARTITION BY value->>'userId' ORDER BY key)) AS new
        WHERE key + ${outboxRows} < ${maxOutboxRows}
          AND nth + ${pending} - ${waiting} <= ${MAX_PENDING_PER_USER}
          AND nth <= ${room('submissions-per-minute')} AND nth <= ${room('submissions-per-day')}
          AND bytes <= ${room('submitted-bytes-per-day')}
          ${mayWait ? sql`AND (NOT value->>'mayWait' OR nth + ${pending} <= ${MAX_WAITING_PER_USER})` : undefined}
        ORDER BY key
        ON CONFLICT DO NOTHING RETURNING id`,
      sql`
        INSERT INTO outbox (operation_id)
        SELECT value->>'id' FROM json_each(${uses}) AS new WHERE ${isStored} ORDER BY key`,
      countUse('submissions-per-minute', used(sql`count(*)`)),
      countUse('submissions-per-day', used(sql`count(*)`)),
      countUse('submitted-bytes-per-day', used(sql`sum(value->>'bytes')`)),
    ]
  },
  outcomes([before, inserted], rows) {
    const room = maxOutboxRows - Number(before?.rows[0]?.waiting)
    const ids = new Set(inserted?.rows.map((row) => row.id))
    return rows.map(({ id }, index) => (ids.has(id) ? 'stored' : index >= room ? 'outbox full' : 'refused'))
  },
})
