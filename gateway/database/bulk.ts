import type { ResultSet } from '@libsql/client'
import type { Statement } from './transaction.ts'

/** A kind of row. Rows of one kind in the same transaction are written together, over `json_each(?)`. */
export interface Bulk<Row, Outcome> {
  /**
   * The statements that write `rows`. The conflict of one row must not fail the others: use ON CONFLICT DO NOTHING, and
   * INSERT … SELECT … WHERE for rows that depend on it.
   */
  statements(rows: readonly Row[]): readonly Statement[]
  /** The outcome of each row, in order, from the result of each statement. */
  outcomes(results: readonly ResultSet[], rows: readonly Row[]): readonly Outcome[]
}

/** Rows of one kind in one transaction. Whoever submitted one waits for its outcome. */
export interface Entry {
  statements(): readonly Statement[]
  resolve(results: readonly ResultSet[]): void
  reject(error: unknown): void
  /** Each row as an entry of its own. */
  split(): readonly Entry[]
}

export interface Submission<Row, Outcome> extends Omit<PromiseWithResolvers<Outcome>, 'promise'> {
  readonly row: Row
}

export function createEntry<Row, Outcome>(
  kind: Bulk<Row, Outcome>,
  submissions: readonly Submission<Row, Outcome>[],
): Entry {
  const rows = submissions.map(({ row }) => row)
  return {
    statements: () => kind.statements(rows),
    resolve(results) {
      for (const [index, outcome] of kind.outcomes(results, rows).entries()) submissions[index]?.resolve(outcome)
    },
    reject(error) {
      for (const submission of submissions) submission.reject(error)
    },
    split: () => submissions.map((submission) => createEntry(kind, [submission])),
  }
}
