import { type Client, type InValue, LibsqlError, type ResultSet } from '@libsql/client'
import { Problem } from '@posta/common/service/problem.ts'
import type { SQLWrapper } from 'drizzle-orm'
import { SQLiteAsyncDialect } from 'drizzle-orm/sqlite-core'

/** What `sql` or a query builder of drizzle makes, not yet run. */
export type Statement = SQLWrapper

/** A kind of row: those that arrive together are written by one statement each for all of them, over `json_each(?)`. */
export interface Bulk<Row, Outcome> {
  /**
   * What writes `rows`. One row's conflict must not fail the others: ON CONFLICT DO NOTHING, and INSERT … SELECT … WHERE
   * for what depends on it.
   */
  statements(rows: readonly Row[]): readonly Statement[]
  /** What became of each row, in order, by the result of each statement. */
  outcomes(results: readonly ResultSet[], rows: readonly Row[]): readonly Outcome[]
}

/**
 * The one way by which this process writes. What is submitted while a transaction is under way joins in the next (group
 * commit), in order of arrival, except that a row joins those of its kind that wait already. A submission resolves once
 * it is committed and synced. If a transaction fails for the fault of one in it, each is run again by itself, and only
 * the faulty one rejects.
 *
 * Rejects with Problem `overloaded`, and nothing is written, where the queue is full or the database stays locked for 5 s.
 */
export interface Writer {
  /** Runs the statements as part of one transaction: all of them or none. Resolves to a result per statement. */
  write(statements: readonly Statement[]): Promise<readonly ResultSet[]>
  /** Makes the function that submits a row of this kind. Make it once, not per row. */
  bulk<Row, Outcome>(kind: Bulk<Row, Outcome>): (row: Row) => Promise<Outcome>
  /** Calls `listener` after each commit, with how many submissions were in it. It must not throw. */
  onCommit(listener: (submissions: number) => void): void
  /** Commits what is queued, and refuses more. */
  close(): Promise<void>
}

const MAX_TOGETHER = 256
const MAX_QUEUED_ROWS = 4096
// Counted apart from rows, so that a flood of operations keeps neither a login nor a lease's beat from its turn.
const MAX_QUEUED_WRITES = 1024
const MAX_LOCKED_MS = 5000

/** @param client is for this writer alone. */
export function createWriter(
  client: Pick<Client, 'batch' | 'reconnect'>,
  options: {
    /** What the submitter is told for an error that has a meaning of its own, such as a CHECK that refused. */
    explain?: (error: unknown) => Problem | undefined
    monotonicMs?: () => number
  } = {},
): Writer {
  const { explain = () => undefined, monotonicMs = () => performance.now() } = options
  const queue: Entry[] = []
  const listeners: ((submissions: number) => void)[] = []
  let running: Promise<void> | undefined
  let closed = false

  function submitter<Row, Outcome>(kind: Bulk<Row, Outcome>, maxTogether: number, maxQueued: number) {
    let queued = 0
    let last: Entry | undefined
    let waiting: Submission<Row, Outcome>[] = []
    return (row: Row) =>
      new Promise<Outcome>((resolve, reject) => {
        if (closed) return reject(new Problem('unavailable', 'The database is closing.', { retryAfterS: 1 }))
        if (queued >= maxQueued) return reject(new Problem('overloaded', undefined, { retryAfterS: 1 }))
        queued += 1
        if (!last?.isWaiting || waiting.length >= maxTogether) {
          waiting = []
          last = createEntry(kind, waiting)
          queue.push(last)
        }
        waiting.push({
          row,
          resolve(outcome) {
            queued -= 1
            resolve(outcome)
          },
          reject(error) {
            queued -= 1
            reject(error)
          },
        })
        running ??= run()
      })
  }

  async function run(): Promise<void> {
    while (queue.length > 0) {
      // Whoever submits in the same turn of the event loop gets to join.
      await new Promise((resolve) => setImmediate(resolve))
      await commit(takeGroup())
    }
    running = undefined
  }

  function takeGroup(): Entry[] {
    const group: Entry[] = []
    let size = 0
    for (let next = queue[0]; next && (size === 0 || size + next.size <= MAX_TOGETHER); next = queue[0]) {
      size += next.size
      next.isWaiting = false
      group.push(next)
      queue.shift()
    }
    return group
  }

  async function commit(group: readonly Entry[]): Promise<void> {
    const size = group.reduce((sum, entry) => sum + entry.size, 0)
    const settles: (() => void)[] = []
    try {
      const parts = group.map((entry) => ({ entry, statements: entry.statements() }))
      const results = await transact(parts.flatMap((part) => part.statements))
      let from = 0
      for (const { entry, statements } of parts) {
        const own = results.slice(from, from + statements.length)
        settles.push(() => entry.resolve(own))
        from += statements.length
      }
    } catch (error) {
      if (size > 1 && isOfOneSubmission(error)) {
        for (const single of group.flatMap((entry) => entry.split())) await commit([single])
        return
      }
      const reason = explain(error) ?? error
      for (const entry of group) entry.reject(reason)
      return
    }
    for (const settle of settles) settle()
    for (const listener of listeners) listener(size)
  }

  async function transact(statements: readonly Statement[]): Promise<readonly ResultSet[]> {
    const rendered = statements.map(render)
    const startedMs = monotonicMs()
    for (let waitMs = 2; ; waitMs = Math.min(2 * waitMs, 100)) {
      try {
        return await client.batch(rendered, 'write')
      } catch (error) {
        if (!isLocked(error)) throw error
        // After one SQLITE_BUSY the connection would fail at every COMMIT.
        client.reconnect()
        if (monotonicMs() - startedMs > MAX_LOCKED_MS)
          throw new Problem('overloaded', 'The database is locked.', { retryAfterS: 1, cause: error })
        await Bun.sleep(waitMs * (0.5 + Math.random() / 2))
      }
    }
  }

  const writes: Bulk<readonly Statement[], readonly ResultSet[]> = {
    statements: (groups) => groups.flat(),
    outcomes: (results) => [results],
  }

  return {
    write: submitter(writes, 1, MAX_QUEUED_WRITES),
    bulk: (kind) => submitter(kind, MAX_TOGETHER, MAX_QUEUED_ROWS),
    onCommit: (listener) => void listeners.push(listener),
    async close() {
      closed = true
      await running
    },
  }
}

/** Submissions of one kind that take their turn together. */
interface Entry {
  readonly size: number
  /** False once its turn has come, when no more may join. */
  isWaiting: boolean
  statements(): readonly Statement[]
  resolve(results: readonly ResultSet[]): void
  reject(error: unknown): void
  /** The same submissions, each by itself. */
  split(): readonly Entry[]
}

interface Submission<Row, Outcome> {
  readonly row: Row
  readonly resolve: (outcome: Outcome) => void
  readonly reject: (error: unknown) => void
}

function createEntry<Row, Outcome>(kind: Bulk<Row, Outcome>, submissions: readonly Submission<Row, Outcome>[]): Entry {
  const rows = () => submissions.map(({ row }) => row)
  return {
    get size() {
      return submissions.length
    },
    isWaiting: true,
    statements: () => kind.statements(rows()),
    resolve(results) {
      const outcomes = kind.outcomes(results, rows())
      for (const [index, outcome] of outcomes.entries()) submissions[index]?.resolve(outcome)
    },
    reject(error) {
      for (const submission of submissions) submission.reject(error)
    },
    split: () => submissions.map((submission) => createEntry(kind, [submission])),
  }
}

const dialect = new SQLiteAsyncDialect()

function render(statement: Statement): { sql: string; args: InValue[] } {
  const { sql, params } = dialect.sqlToQuery(statement.getSQL())
  return { sql, args: params.map(asValue) }
}

function asValue(param: unknown): InValue {
  if (param === null || param instanceof Uint8Array) return param
  if (typeof param === 'string' || typeof param === 'number' || typeof param === 'bigint') return param
  throw new TypeError('A parameter of a statement is of a type that SQLite does not have.')
}

export function isLocked(error: unknown): boolean {
  return error instanceof LibsqlError && (error.code === 'SQLITE_BUSY' || error.code === 'SQLITE_LOCKED')
}

/** Whether the fault can lie with one submission (a constraint, a value), and not with the disk or the connection. */
function isOfOneSubmission(error: unknown): boolean {
  if (error instanceof Problem) return error.code !== 'overloaded'
  if (!(error instanceof LibsqlError)) return true
  return /^SQLITE_(CONSTRAINT|ERROR|TOOBIG|MISMATCH|RANGE)/.test(error.code)
}
