// 6. Makes operations terminal by their results. Next: await-outcome.ts
import type { Broker, Subscription } from '@posta/common/broker/broker.ts'
import { consume } from '@posta/common/consumer/consume.ts'
import { type Decoded, decode } from '@posta/common/messages/envelope.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import { catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { sql } from 'drizzle-orm'
import type { Registry } from 'prom-client'
import * as v from 'valibot'
import type { Bulk, Writer } from '../database/commit.ts'

/** What a result writes into the row of its operation. */
interface Change {
  readonly id: string
  readonly userId: string
  readonly type: OperationType
  readonly status: 'succeeded' | 'failed'
  readonly output?: Record<string, unknown>
  readonly errorCode?: string
  readonly errorMessage?: string
  readonly completedAt: number
  /** Whether it answers a redrive, which may turn `dead-lettered` into a success. */
  readonly redriven: boolean
}

export type Completed = Pick<Change, 'id' | 'type' | 'status'>

/** @param options.onCompleted is called with the operations that became terminal, once that is committed. */
export function receiveResults(options: {
  broker: Broker
  writer: Writer
  onCompleted: (completed: readonly Completed[]) => void
  log: Logger
  metrics: Registry
  deps: Pick<Deps, 'monotonicMs' | 'now'>
}): Subscription {
  const { writer, onCompleted, ...others } = options
  const apply = writer.bulk(applyChanges)

  return consume<Change>({
    ...others,
    group: groups.gateway,
    topics: [topics.results],
    read: (message) => readResult(decode(message)),
    async handle(received) {
      const outcomes = await Promise.all(received.map(({ item }) => apply(item)))
      onCompleted(received.flatMap(({ item }, index) => (outcomes[index] === 'changed' ? [item] : [])))
      return received.map(({ item }, index) =>
        // A request is sent only for an operation that is stored, so this result answers no request of ours.
        outcomes[index] === 'unknown' ? { dead: `There is no operation ${item.id} of this user.` } : { done: true },
      )
    },
  })
}

function readResult(decoded: Decoded): { item: Change } | { unreadable: string } {
  if ('unreadable' in decoded) return decoded
  const { type, data, redrive } = decoded.envelope
  if (type !== 'posta.operation.succeeded' && type !== 'posta.operation.failed')
    return { unreadable: 'It is not a result.' }
  const { operation: id, user: userId, operationType, completedAt } = data
  const change = {
    id,
    userId,
    type: operationType,
    completedAt: Date.parse(completedAt),
    redriven: redrive !== undefined,
  }
  if ('error' in data)
    return { item: { ...change, status: 'failed', errorCode: data.error.code, errorMessage: data.error.message } }
  const contract: Contract = catalog[operationType]
  const output = v.safeParse(contract.output, data.output)
  if (!output.success) return { unreadable: `The output does not fit the schema of ${operationType}.` }
  return { item: { ...change, status: 'succeeded', output: output.output } }
}

/** A terminal operation stays as it is, with one exception: a redrive turns `dead-lettered` into a success. */
const applyChanges: Bulk<Change, 'changed' | 'unchanged' | 'unknown'> = {
  statements(changes) {
    const json = JSON.stringify(onePerOperation(changes))
    return [
      sql`
        UPDATE operations SET
          status = change.value->>'status', output = change.value->'output', error_code = change.value->>'errorCode',
          error_message = change.value->>'errorMessage', completed_at = change.value->>'completedAt', rates = NULL, resend_at = NULL
        FROM json_each(${json}) AS change
        WHERE operations.id = change.value->>'id' AND operations.user_id = change.value->>'userId' AND (
          operations.status = 'pending' OR (
            operations.status = 'failed' AND operations.error_code = 'dead-lettered'
            AND change.value->>'redriven' AND change.value->>'status' = 'succeeded'))
        RETURNING id`,
      sql`
        SELECT operations.id AS id FROM json_each(${json}) AS change
        JOIN operations ON operations.id = change.value->>'id' AND operations.user_id = change.value->>'userId'`,
    ]
  },
  outcomes([updated, existing], changes) {
    const changed = new Set(updated?.rows.map((row) => row.id))
    const known = new Set(existing?.rows.map((row) => row.id))
    return changes.map(({ id }) => (changed.has(id) ? 'changed' : known.has(id) ? 'unchanged' : 'unknown'))
  },
}

/** Of several results of one operation, the one that stays: the first, unless the success of a redrive replaces it. */
function onePerOperation(changes: readonly Change[]): Change[] {
  const byId = new Map<string, Change>()
  for (const change of changes) {
    const before = byId.get(change.id)
    // If the stored row is dead-lettered already, a plain success changes nothing and only the redrive's does.
    const givesWay = before?.errorCode === 'dead-lettered' || (before?.status === 'succeeded' && !before.redriven)
    if (!before || (givesWay && change.redriven && change.status === 'succeeded')) byId.set(change.id, change)
  }
  return [...byId.values()]
}
