// 1. A request becomes an operation. Next: relay.ts
import { encode } from '@posta/common/messages/envelope.ts'
import { catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import type { RateTable } from '@posta/common/operations/rates.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { traceparent } from '@posta/common/service/trace.ts'
import { and, eq, sql } from 'drizzle-orm'
import * as v from 'valibot'
import type { Bulk } from '../database/bulk.ts'
import type { Writer } from '../database/commit.ts'
import type { Database } from '../database/open.ts'
import { MAX_ROWS_WITH_OPERATIONS, outboxRows } from '../database/outbox.ts'
import { operations } from '../database/schema.ts'
import type { Rates } from '../rates/rates.ts'
import { type Operation, type OperationRow, toOperation } from './operation.ts'
import { requestOf } from './request.ts'

export const MAX_PENDING_PER_USER = 100
/** How long an operation may stay pending before its request is sent again; doubles each time. */
export const RESEND_AFTER_MS = 2 * 60 * 1000

const IdempotencyKey = v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,255}$/))

/** What is submitted: a type of the catalog, and an input that fits its contract. */
export const Submission: v.GenericSchema<unknown, { type: OperationType; input: Record<string, unknown> }> = v.variant(
  'type',
  Object.values(catalog).map((contract) => v.strictObject({ type: v.literal(contract.type), input: contract.input })),
)

export type Submit = (asked: {
  user: string
  submission: unknown
  idempotencyKey?: string | undefined
}) => Promise<Operation>

/**
 * Accepts an operation: checked, its rates fetched, and durably stored together with the request that the relay will
 * send. An idempotency key that was used before answers with the operation of then, and fetches nothing.
 *
 * @throws Problem `invalid-input`, `malformed-request` (the key), `unknown-currency`, `idempotency-key-reused`,
 * `too-many-pending`, `payload-too-large`, `rates-unavailable`, `overloaded`. None of them uses the key up.
 */
export function createSubmit(options: {
  database: Database
  writer: Writer
  rates: Rates
  /** Called once an operation is durably accepted; not for a key that answers with an earlier one. */
  onAccepted: (type: OperationType) => void
  deps: Pick<Deps, 'now' | 'newId'>
  maxOutboxRows?: number
}): Submit {
  const { database, writer, rates, onAccepted, deps, maxOutboxRows = MAX_ROWS_WITH_OPERATIONS } = options
  const insert = writer.bulk(insertOperations(maxOutboxRows))

  async function withKey(user: string, key: string | undefined): Promise<OperationRow | undefined> {
    if (key === undefined) return undefined
    const [row] = await database
      .select()
      .from(operations)
      .where(and(eq(operations.userId, user), eq(operations.idempotencyKey, key)))
      .limit(1)
    return row
  }

  return async ({ user, submission, idempotencyKey }) => {
    if (idempotencyKey !== undefined && !v.is(IdempotencyKey, idempotencyKey))
      throw new Problem('malformed-request', 'The idempotency key must have 1 to 255 visible ASCII characters.')
    const { type, input } = checkInput(Submission, submission)
    const earlier = await withKey(user, idempotencyKey)
    if (earlier) return replay(earlier, type, input)

    const contract: Contract = catalog[type]
    const table = ratesFor(contract, input, await fetchRates(rates, contract, input))
    const createdAt = deps.now()
    const row = {
      id: deps.newId(),
      userId: user,
      type,
      input,
      rates: table,
      traceparent: traceparent() ?? null,
      idempotencyKey: idempotencyKey ?? null,
      createdAt,
      resendAt: createdAt + RESEND_AFTER_MS,
    }
    // Too large a message must not enter the outbox.
    encode(requestOf(row))
    const outcome = await insert(row)
    if (outcome === 'stored') {
      onAccepted(type)
      return toOperation({ ...row, ...untouched })
    }
    const winner = await withKey(user, idempotencyKey)
    if (winner) return replay(winner, type, input)
    if (outcome === 'outbox full')
      throw new Problem('overloaded', 'So many operations wait to be sent that no more are accepted.', {
        retryAfterS: 10,
      })
    throw new Problem(
      'too-many-pending',
      `You have ${MAX_PENDING_PER_USER} operations pending; wait until some are done.`,
      { retryAfterS: 1 },
    )
  }
}

const untouched = {
  status: 'pending',
  output: null,
  errorCode: null,
  errorMessage: null,
  completedAt: null,
  resends: 0,
} as const

/** Both inputs went through the same schema, which decides order and case of what it lets through. */
function replay(row: OperationRow, type: string, input: Record<string, unknown>): Operation {
  if (row.type !== type || !Bun.deepEquals(row.input, input))
    throw new Problem(
      'idempotency-key-reused',
      'This idempotency key belongs to an operation with another type or input.',
    )
  return toOperation(row)
}

async function fetchRates(rates: Rates, contract: Contract, input: Record<string, unknown>): Promise<RateTable> {
  try {
    return await rates.table(String(input[contract.rates.base]))
  } catch (error) {
    throw error instanceof Problem && error.code === 'unknown-currency'
      ? unknownCurrency(input, contract.rates.base)
      : error
  }
}

/** Of the table, what the contract asks for. @throws Problem `unknown-currency` at the member with a code that is not in it. */
function ratesFor(contract: Contract, input: Record<string, unknown>, table: RateTable): RateTable {
  const { quotes, also = [] } = contract.rates
  if (quotes === 'all') return table
  const byCode = new Map([[table.base, '1'], ...table.rates.map(({ code, rate }) => [code, rate] as const)])
  for (const member of quotes) if (!byCode.has(String(input[member]))) throw unknownCurrency(input, member)
  const codes = new Set([...quotes.map((member) => String(input[member])), ...also])
  const picked = [...codes].map((code) => {
    const rate = byCode.get(code)
    if (rate === undefined)
      throw new Problem('rates-unavailable', `The rates of ${table.base} have none for ${code}.`, { retryAfterS: 60 })
    return { code, rate }
  })
  return { ...table, rates: picked }
}

function unknownCurrency(input: Record<string, unknown>, member: string): Problem {
  const detail = `There are no rates for ${String(input[member])}.`
  return new Problem('unknown-currency', detail, { errors: [{ pointer: `#/input/${member}`, detail }] })
}

type NewRow = Pick<
  OperationRow,
  'id' | 'userId' | 'type' | 'input' | 'rates' | 'traceparent' | 'idempotencyKey' | 'createdAt' | 'resendAt'
>

type Outcome = 'stored' | 'outbox full' | 'refused'

/** `refused`: its key is taken or its user has too many pending. One transaction, so no replica exceeds a bound. */
const insertOperations = (maxOutboxRows: number): Bulk<NewRow, Outcome> => ({
  statements(rows) {
    const json = JSON.stringify(rows)
    return [
      sql`SELECT ${outboxRows} AS waiting`,
      sql`
        INSERT INTO operations (id, user_id, type, input, rates, traceparent, idempotency_key, created_at, resend_at)
        SELECT value->>'id', value->>'userId', value->>'type', value->'input', value->'rates', value->>'traceparent',
          value->>'idempotencyKey', value->>'createdAt', value->>'resendAt'
        FROM (SELECT key, value, row_number() OVER (PARTITION BY value->>'userId' ORDER BY key) AS nth FROM json_each(${json})) AS new
        WHERE key + ${outboxRows} < ${maxOutboxRows} AND nth + (
          SELECT count(*) FROM operations AS other WHERE other.user_id = new.value->>'userId' AND other.status = 'pending'
        ) <= ${MAX_PENDING_PER_USER}
        ORDER BY key
        ON CONFLICT DO NOTHING RETURNING id`,
      sql`
        INSERT INTO outbox (operation_id)
        SELECT new.value FROM json_each(${JSON.stringify(rows.map(({ id }) => id))}) AS new
        WHERE EXISTS (SELECT 1 FROM operations WHERE operations.id = new.value)
        ORDER BY new.key`,
    ]
  },
  outcomes([before, inserted], rows) {
    const room = maxOutboxRows - Number(before?.rows[0]?.waiting)
    const ids = new Set(inserted?.rows.map((row) => row.id))
    return rows.map(({ id }, index) => (ids.has(id) ? 'stored' : index >= room ? 'outbox full' : 'refused'))
  },
})
