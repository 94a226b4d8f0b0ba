// 5. A result makes its operation terminal. Next: until.ts
import type { Broker } from '@posta/common/broker/broker.ts'
import { consume } from '@posta/common/consumer/consume.ts'
import type { Received, Verdict } from '@posta/common/consumer/handler.ts'
import type { Consumer } from '@posta/common/consumer/subscription.ts'
import { type Decoded, decode, type Envelope } from '@posta/common/messages/envelope.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import { catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { sql } from 'drizzle-orm'
import type { Registry } from 'prom-client'
import * as v from 'valibot'
import type { Bulk, Writer } from '../database/commit.ts'

type ResultEnvelope = Envelope<'posta.operation.succeeded'> | Envelope<'posta.operation.failed'>

/** What a result changes in the row of its operation. */
interface Change {
  readonly id: string
  readonly userId: string
  readonly type: OperationType
  readonly status: 'succeeded' | 'failed'
  readonly output: Record<string, unknown> | null
  readonly errorCode: string | null
  readonly errorMessage: string | null
  readonly completedAt: number
  /** A redrive may turn a failure by dead letter into a success. */
  readonly redriven: boolean
}

export type Completed = Pick<Change, 'id' | 'type' | 'status'>

/** @param options.onCompleted is called with the operations that have become terminal, once that is durable. */
export function receiveResults(options: {
  broker: Broker
  writer: Writer
  onCompleted: (completed: readonly Completed[]) => void
  log: Logger
  metrics: Registry
  deps: Pick<Deps, 'monotonicMs' | 'now'>
}): Consumer {
  const { broker, writer, onCompleted, log, metrics, deps } = options
  const apply = writer.bulk(applyChanges)

  return consume<Change>({
    name: 'results',
    broker,
    group: groups.gateway,
    topics: [topics.results],
    log,
    metrics,
    deps,
    read: (message) => readResult(decode(message)),
    async handle(received) {
      const outcomes = await Promise.all(received.map(({ item }) => apply(item)))
      onCompleted(received.flatMap(({ item }, index) => (outcomes[index] === 'changed' ? [item] : [])))
      return outcomes.map((outcome, index) => verdict(outcome, received[index]))
    },
  })
}

type Outcome = 'changed' | 'unchanged' | 'unknown'

function verdict(outcome: Outcome, received: Received<Change> | undefined): Verdict {
  // An operation is durable before its request is sent, so a result without one is nobody's.
  if (outcome === 'unknown') return { dead: `There is no operation ${received?.item.id} of this user.` }
  return { done: true }
}

function readResult(decoded: Decoded): { item: Change } | { unreadable: string } {
  if ('unreadable' in decoded) return decoded
  const { envelope } = decoded
  if (envelope.type !== 'posta.operation.succeeded' && envelope.type !== 'posta.operation.failed')
    return { unreadable: 'It is no result.' }
  return changeOf(envelope)
}

function changeOf(envelope: ResultEnvelope): { item: Change } | { unreadable: string } {
  const { user, operation, operationType, completedAt } = envelope.data
  const common = {
    id: operation,
    userId: user,
    type: operationType,
    completedAt: Date.parse(completedAt),
    redriven: envelope.redrive !== undefined,
  }
  if (envelope.type === 'posta.operation.failed') {
    const { code, message } = envelope.data.error
    return { item: { ...common, status: 'failed', output: null, errorCode: code, errorMessage: message } }
  }
  const contract: Contract = catalog[operationType]
  const output = v.safeParse(contract.output, envelope.data.output)
  if (!output.success) return { unreadable: `The output does not fit the schema of ${contract.type}.` }
  return { item: { ...common, status: 'succeeded', output: output.output, errorCode: null, errorMessage: null } }
}

/** What is terminal stays as it is, but for a redrive that succeeds where a dead letter had failed. */
const applyChanges: Bulk<Change, Outcome> = {
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

/** Of several results for one operation that arrive together, the one that stays: the first, unless a redrive succeeded. */
function onePerOperation(changes: readonly Change[]): Change[] {
  const byId = new Map<string, Change>()
  for (const change of changes) {
    const before = byId.get(change.id)
    // A plain success is in vain where the row has the dead letter already: then the redrive's alone counts.
    const givesWay = before?.errorCode === 'dead-lettered' || (before?.status === 'succeeded' && !before.redriven)
    if (!before || (givesWay && change.redriven && change.status === 'succeeded')) byId.set(change.id, change)
  }
  return [...byId.values()]
}
