// 6. Makes operations terminal by their results, and keeps their progress. Next: await-outcome.ts
import type { Broker } from '@posta/common/broker/broker.ts'
import { consume } from '@posta/common/consumer/consume.ts'
import type { Consumer } from '@posta/common/consumer/subscription.ts'
import { type Decoded, decode } from '@posta/common/messages/envelope.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import { catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { sql } from 'drizzle-orm'
import type { Registry } from 'prom-client'
import * as v from 'valibot'
import type { Bulk } from '../database/bulk.ts'
import type { Writer } from '../database/commit.ts'
import { keepProgress, keyOf, type Progress } from './keep-progress.ts'

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

type Item = { readonly result: Change } | { readonly progress: Progress }

/**
 * @param options.onCompleted is called with the operations that became terminal, once that is committed.
 * @param options.onProgressed is called with the ids of the operations that have more progress, once that is committed.
 */
export function receiveResults(options: {
  broker: Broker
  writer: Writer
  onCompleted: (completed: readonly Completed[]) => void
  onProgressed: (ids: readonly string[]) => void
  log: Logger
  metrics: Registry
  deps: Pick<Deps, 'monotonicMs' | 'now'>
}): Consumer {
  const { writer, onCompleted, onProgressed, ...others } = options
  const apply = writer.bulk(applyChanges)
  const keep = writer.bulk(keepProgress(others.deps.now))

  return consume<Item>({
    ...others,
    name: 'results',
    group: groups.gateway,
    topics: [topics.results],
    read: (message) => readResult(decode(message)),
    async handle(received) {
      const items = received.map(({ item }) => item)
      // Submitted together, so that all of them share one commit.
      const outcomes = await Promise.all(
        items.map((item) => ('result' in item ? apply(item.result) : keep(item.progress))),
      )
      onCompleted(
        items.flatMap((item, index) => ('result' in item && outcomes[index] === 'changed' ? item.result : [])),
      )
      onProgressed(
        items.flatMap((item, index) =>
          'progress' in item && outcomes[index] === 'kept' ? item.progress.operation : [],
        ),
      )
      return items.map((item, index) =>
        // A request is sent only for an operation that is stored, so this answers no request of ours.
        outcomes[index] === 'unknown' ? { dead: `There is no operation ${idOf(item)} of this user.` } : { done: true },
      )
    },
  })
}

const idOf = (item: Item) => ('result' in item ? item.result.id : item.progress.operation)

function readResult(decoded: Decoded): { item: Item } | { unreadable: string } {
  if ('unreadable' in decoded) return decoded
  if (decoded.envelope.type === 'posta.operation.progressed') return { item: { progress: decoded.envelope.data } }
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
    return {
      item: { result: { ...change, status: 'failed', errorCode: data.error.code, errorMessage: data.error.message } },
    }
  const contract: Contract = catalog[operationType]
  const output = v.safeParse(contract.output, data.output)
  if (!output.success) return { unreadable: `The output does not fit the schema of ${operationType}.` }
  return { item: { result: { ...change, status: 'succeeded', output: output.output } } }
}

/** A terminal operation stays as it is, with one exception: a redrive turns `dead-lettered` into a success. */
const applyChanges: Bulk<Change, 'changed' | 'unchanged' | 'unknown'> = {
  statements(changes) {
    const json = JSON.stringify(onePerOperation(changes))
    return [
      sql`
        UPDATE operations SET
          status = change.value->>'status', output = change.value->'output', error_code = change.value->>'errorCode',
          error_message = change.value->>'errorMessage', completed_at = change.value->>'completedAt', facts = NULL, resend_at = NULL
        FROM json_each(${json}) AS change
        WHERE operations.id = change.value->>'id' AND operations.user_id = change.value->>'userId' AND (
          operations.status = 'pending' OR (
            operations.status = 'failed' AND operations.error_code = 'dead-lettered'
            AND change.value->>'redriven' AND change.value->>'status' = 'succeeded'))
        RETURNING id, user_id`,
      sql`
        SELECT operations.id, operations.user_id FROM json_each(${json}) AS change
        JOIN operations ON operations.id = change.value->>'id' AND operations.user_id = change.value->>'userId'`,
    ]
  },
  outcomes([updated, existing], changes) {
    const written = new Set(onePerOperation(changes))
    const [changed, known] = [updated, existing].map(
      (result) => new Set(result?.rows.map((row) => keyOf(String(row.id), String(row.user_id)))),
    )
    return changes.map((change) => {
      const key = keyOf(change.id, change.userId)
      if (!known?.has(key)) return 'unknown'
      return written.has(change) && changed?.has(key) ? 'changed' : 'unchanged'
    })
  },
}

/** Of several results of one operation, the one that stays: the first, unless the success of a redrive replaces it. */
function onePerOperation(changes: readonly Change[]): Change[] {
  const byKey = new Map<string, Change>()
  for (const change of changes) {
    const key = keyOf(change.id, change.userId)
    const before = byKey.get(key)
    // If the stored row is dead-lettered already, a plain success changes nothing and only the redrive's does.
    const givesWay = before?.errorCode === 'dead-lettered' || (before?.status === 'succeeded' && !before.redriven)
    if (!before || (givesWay && change.redriven && change.status === 'succeeded')) byKey.set(key, change)
  }
  return [...byKey.values()]
}
