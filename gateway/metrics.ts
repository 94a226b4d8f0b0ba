import { type OperationType, operationTypes } from '@posta/common/operations/catalog.ts'
import { toProblem } from '@posta/common/service/http.ts'
import { Counter, Gauge, Histogram, type Registry } from 'prom-client'
import type { Completed } from './operations/receive-results.ts'

/**
 * What gateway tells of itself at `/metrics`, besides HTTP, its process and its consumer. Operations that were accepted
 * and not completed are pending.
 */
export function createGatewayMetrics(
  registry: Registry,
  sources: { outboxRows: () => Promise<number>; hashesWaiting: () => number },
) {
  const registers = [registry]
  const submissions = new Counter({
    name: 'posta_submissions_total',
    help: 'Submissions that were answered here: succeeded, also by an earlier operation, or the code of the problem.',
    labelNames: ['outcome'],
    registers,
  })
  const logins = new Counter({
    name: 'posta_logins_total',
    help: 'Attempts to log in here: succeeded, or the code of the problem.',
    labelNames: ['outcome'],
    registers,
  })
  const accepted = new Counter({
    name: 'posta_operations_accepted_total',
    help: 'Operations that were accepted here.',
    labelNames: ['type'],
    registers,
  })
  const completed = new Counter({
    name: 'posta_operations_completed_total',
    help: 'Operations that became terminal here, and failed ones that a redrive turned into succeeded.',
    labelNames: ['type', 'status'],
    registers,
  })
  const commitSize = new Histogram({
    name: 'posta_commit_size',
    help: 'Writes that were committed together; their count is the commits.',
    buckets: [1, 2, 5, 10, 25, 50, 100, 256],
    registers,
  })
  new Gauge({
    name: 'posta_outbox_rows',
    help: 'Messages of all gateways that wait to be published. NaN while the database does not answer.',
    registers,
    async collect() {
      this.set(await sources.outboxRows().catch(() => Number.NaN))
    },
  })
  new Gauge({
    name: 'posta_password_hashes_waiting',
    help: 'Passwords that wait for a core to be hashed on.',
    registers,
    collect() {
      this.set(sources.hashesWaiting())
    },
  })
  // A counter that begins with its first increment hides that one from whoever watches for increases.
  for (const type of operationTypes) {
    accepted.inc({ type }, 0)
    for (const status of ['succeeded', 'failed']) completed.inc({ type, status }, 0)
  }

  return {
    accepted: (type: OperationType) => accepted.inc({ type }),
    completed(operations: readonly Completed[]) {
      for (const { type, status } of operations) completed.inc({ type, status })
    },
    committed: (submissions: number) => commitSize.observe(submissions),
    submissions: countOutcomes(submissions),
    logins: countOutcomes(logins),
  }
}

/** Makes the same function of a function, with what comes of it counted. */
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
