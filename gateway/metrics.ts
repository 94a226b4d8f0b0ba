import { type OperationType, operationTypes } from '@posta/common/operations/catalog.ts'
import { toProblem } from '@posta/common/service/http.ts'
import { sql } from 'drizzle-orm'
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Passwords } from './accounts/passwords.ts'
import type { Writer } from './database/commit.ts'
import { countOutbox } from './database/outbox.ts'
import type { Completed } from './operations/receive-results.ts'
import type { InputKind } from './operations/tell.ts'

/**
 * Gateway's own metrics, besides those of HTTP, the process and the consumer. How many operations are pending is the
 * difference between accepted and completed, over all gateways.
 */
export function createGatewayMetrics(options: {
  registry: Registry
  database: Parameters<typeof countOutbox>[0]
  writer: Pick<Writer, 'onCommit'>
  passwords: Pick<Passwords, 'waiting'>
}) {
  const { registry, database, writer, passwords } = options
  const registers = [registry]
  const submissions = new Counter({
    name: 'posta_submissions_total',
    help: 'Submissions answered by this gateway, by outcome: succeeded, or the code of the problem.',
    labelNames: ['outcome'],
    registers,
  })
  const logins = new Counter({
    name: 'posta_logins_total',
    help: 'Attempts to log in at this gateway, by outcome: succeeded, or the code of the problem.',
    labelNames: ['outcome'],
    registers,
  })
  const accepted = new Counter({
    name: 'posta_operations_accepted_total',
    help: 'Operations accepted by this gateway. A submission with a known idempotency key does not count again.',
    labelNames: ['type'],
    registers,
  })
  const completed = new Counter({
    name: 'posta_operations_completed_total',
    help: 'Operations that became terminal at this gateway, and failed ones that a redrive turned into succeeded.',
    labelNames: ['type', 'status'],
    registers,
  })
  const told = new Counter({
    name: 'posta_operation_inputs_total',
    help: 'Cancels and answers that this gateway stored for operations. One that was stored before does not count again.',
    labelNames: ['kind'],
    registers,
  })
  const commitSize = new Histogram({
    name: 'posta_commit_size',
    help: 'Writes per transaction. The count is the number of transactions.',
    buckets: [1, 2, 5, 10, 25, 50, 100, 256],
    registers,
  })
  writer.onCommit((size) => commitSize.observe(size))
  new Gauge({
    name: 'posta_outbox_rows',
    help: 'Messages of all gateways that wait to be published. NaN while the database does not answer.',
    registers,
    async collect() {
      this.set(await countOutbox(database).catch(() => Number.NaN))
    },
  })
  new Gauge({
    name: 'posta_operations_waiting',
    help: 'Operations of all gateways that wait for an answer. NaN while the database does not answer.',
    registers,
    async collect() {
      this.set(await countWaiting(database).catch(() => Number.NaN))
    },
  })
  new Gauge({
    name: 'posta_password_hashes_waiting',
    help: 'Passwords that wait to be hashed.',
    registers,
    collect() {
      this.set(passwords.waiting())
    },
  })
  // A counter that appears with its first increment hides that increment from Prometheus: all of them begin at 0.
  for (const type of operationTypes) {
    accepted.inc({ type }, 0)
    for (const status of ['succeeded', 'failed']) completed.inc({ type, status }, 0)
  }

  const kinds: readonly InputKind[] = ['cancel', 'signal']
  for (const kind of kinds) told.inc({ kind }, 0)

  return {
    told: (kind: InputKind) => told.inc({ kind }),
    accepted: (type: OperationType) => accepted.inc({ type }),
    completed(operations: readonly Completed[]) {
      for (const { type, status } of operations) completed.inc({ type, status })
    },
    submissions: countOutcomes(submissions),
    logins: countOutcomes(logins),
  }
}

/** As many steps as there are such operations: an index holds them alone. */
async function countWaiting(database: Parameters<typeof countOutbox>[0]): Promise<number> {
  const { count } = await database.get<{ count: number }>(
    sql`SELECT count(*) AS count FROM operations WHERE status = 'pending' AND waiting = 1`,
  )
  return count
}

/** Wraps a function so that `counter` counts the outcome of each call. */
function countOutcomes(counter: Counter<'outcome'>) {
  return <Args extends unknown[], Result>(run: (...args: Args) => Promise<Result>) =>
    async (...args: Args): Promise<Result> => {
      try {
        const result = await run(...args)
        counter.inc({ outcome: 'succeeded' })
        return result
      } catch (error) {
        counter.inc({ outcome: toProblem(error).code })
        throw error
      }
    }
}
