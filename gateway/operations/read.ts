import { decodeCursor, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { and, desc, eq, getTableColumns, lt, sql } from 'drizzle-orm'
import * as v from 'valibot'
import type { Database } from '../database/open.ts'
import { operations } from '../database/schema.ts'
import { type Operation, toOperation } from './operation.ts'

const Cursor = v.pipe(v.string(), v.maxLength(64))

export type Read = ReturnType<typeof createRead>

/** How much progress an operation has: it grows with each new entry, and SQLite knows it without reading them. */
export const progressBytes = sql<number>`coalesce(octet_length(${operations.progress}), 0)`

/** Reads a user's own operations. */
export function createRead(database: Database) {
  // Whoever waits for an operation reads it several times. Made anew each time, the query would take longer than the read.
  const byId = database
    .select({ ...getTableColumns(operations), progressBytes })
    .from(operations)
    .where(and(eq(operations.id, sql.placeholder('id')), eq(operations.userId, sql.placeholder('user'))))
    .limit(1)
    .prepare()

  async function observe(user: string, id: string): Promise<{ operation: Operation; progressBytes: number }> {
    const [row] = await byId.all({ id, user })
    if (!row) throw new Problem('not-found', 'You have no operation with this id.')
    return { operation: toOperation(row), progressBytes: row.progressBytes }
  }

  return {
    /** The operation, and `progressBytes` as it was read with it. @throws Problem `not-found`, as `one`. */
    observe,
    /** @throws Problem `not-found`, also if the operation is another user's. */
    async one(user: string, id: string): Promise<Operation> {
      return (await observe(user, id)).operation
    },
    /** Newest first. @throws Problem `malformed-request` if the cursor is not one of this list. */
    async page(user: string, { limit, cursor }: { limit: number; cursor?: string | undefined }) {
      const before = decodeCursor(Cursor, cursor)
      const rows = await database
        .select()
        .from(operations)
        .where(and(eq(operations.userId, user), before === undefined ? undefined : lt(operations.id, before)))
        .orderBy(desc(operations.id))
        .limit(limit + 1)
      return toPage(rows, limit, toOperation, (row) => row.id)
    },
  }
}
