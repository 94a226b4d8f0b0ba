import type { Client, ResultSet } from '@libsql/client'
import { isOutage } from '@posta/common/service/outage.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { type Bulk, createEntry, type Entry, type Submission } from './bulk.ts'
import { type Statement, transact } from './transaction.ts'

/**
 * The only way in which this process writes: group commit. Submissions that arrive while a transaction runs share the next
 * one, in order of arrival. Rows of one kind are written together, so their order among other submissions in the same
 * transaction may differ. A submission resolves once it is committed and synced. If the fault of one submission fails a
 * transaction, each is run again by itself, and only the faulty one rejects.
 *
 * Rejects with Problem `overloaded`, and writes nothing, where the queue is full or the database stays locked for 5 s.
 * @example
 * const [inserted] = await writer.write([database.insert(users).values(row).onConflictDoNothing()])
 */
export interface Writer {
  /** Runs the statements in one transaction: all of them or none. Resolves to a result per statement. */
  write(statements: readonly Statement[]): Promise<readonly ResultSet[]>
  /** Makes the function that submits rows of this kind. Make it once, not per row. */
  bulk<Row, Outcome>(kind: Bulk<Row, Outcome>): (row: Row) => Promise<Outcome>
  /** Calls `listener` after each commit, with the number of submissions in it. It must not throw. */
  onCommit(listener: (submissions: number) => void): void
  /** Commits what is queued, and refuses more. */
  close(): Promise<void>
}

const MAX_TOGETHER = 256
const MAX_QUEUED_ROWS = 4096
// Counted apart from rows: a flood of operations must not get a login, or the beat of a lease, refused.
const MAX_QUEUED_WRITES = 1024

/** What `write` submits: as a row, the statements of one call. */
const writes: Bulk<readonly Statement[], readonly ResultSet[]> = {
  statements: (rows) => rows.flat(),
  outcomes(results, rows) {
    const left = [...results]
    return rows.map(({ length }) => left.splice(0, length))
  },
}

/** @param client is for this writer alone */
export function createWriter(
  client: Pick<Client, 'batch' | 'reconnect'>,
  options: {
    /** Names the reason where an error of the database has a meaning of its own, such as a CHECK that refused. */
    explain?: (error: unknown) => Problem | undefined
    monotonicMs?: () => number
  } = {},
): Writer {
  const { explain = () => undefined, monotonicMs = () => performance.now() } = options
  /** For each submission, in order of arrival, the function that takes the next ones of its kind. */
  const queue: ((count: number) => Entry)[] = []
  const listeners: ((submissions: number) => void)[] = []
  let running: Promise<void> | undefined
  let closed = false

  function submitter<Row, Outcome>(kind: Bulk<Row, Outcome>, maxWaiting: number) {
    const waiting: Submission<Row, Outcome>[] = []
    const take = (count: number) => createEntry(kind, waiting.splice(0, count))

    return async (row: Row): Promise<Outcome> => {
      if (closed) throw new Problem('unavailable', 'The database is closing.', { retryAfterS: 1 })
      if (waiting.length >= maxWaiting) throw new Problem('overloaded', undefined, { retryAfterS: 1 })
      const { promise, ...settle } = Promise.withResolvers<Outcome>()
      waiting.push({ row, ...settle })
      queue.push(take)
      running ??= run()
      return promise
    }
  }

  async function run(): Promise<void> {
    while (queue.length > 0) {
      // Lets everyone who submits in this turn of the event loop join.
      await new Promise((resolve) => setImmediate(resolve))
      const next = queue.splice(0, MAX_TOGETHER)
      const byKind = Map.groupBy(next, (take) => take)
      await commit(
        [...byKind].map(([take, { length }]) => take(length)),
        next.length,
      )
    }
    running = undefined
  }

  async function commit(group: readonly Entry[], size: number): Promise<void> {
    let results: ResultSet[][]
    try {
      results = await writeTogether(group)
    } catch (error) {
      if (size > 1 && !isOutage(error))
        for (const single of group.flatMap((entry) => entry.split())) await commit([single], 1)
      else for (const entry of group) entry.reject(explain(error) ?? error)
      return
    }
    for (const [index, entry] of group.entries()) entry.resolve(results[index] ?? [])
    for (const listener of listeners) listener(size)
  }

  /** Resolves to the results of each entry. */
  async function writeTogether(group: readonly Entry[]): Promise<ResultSet[][]> {
    const perEntry = group.map((entry) => entry.statements())
    const results = await transact(client, perEntry.flat(), monotonicMs)
    return perEntry.map(({ length }) => results.splice(0, length))
  }

  return {
    write: submitter(writes, MAX_QUEUED_WRITES),
    bulk: (kind) => submitter(kind, MAX_QUEUED_ROWS),
    onCommit: (listener) => void listeners.push(listener),
    async close() {
      closed = true
      await running
    },
  }
}
