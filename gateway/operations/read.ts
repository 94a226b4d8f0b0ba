import { decodeCursor, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { and, desc, eq, lt } from 'drizzle-orm'
import * as v from 'valibot'
import type { Database } from '../database/open.ts'
import { operations } from '../database/schema.ts'
import { type Operation, toOperation } from './operation.ts'

const Cursor = v.pipe(v.string(), v.maxLength(64))

export type Read = ReturnType<typeof createRead>

/** Reads a user's own operations. */
export function createRead(database: Database) {
  return {
    /** @throws Problem `not-found`, also if the operation is another user's. */
    async one(user: string, id: string): Promise<Operation> {
      const [row] = await database
        .select()
        .from(operations)
        .where(and(eq(operations.id, id), eq(operations.userId, user)))
        .limit(1)
      if (!row) throw new Problem('not-found', 'You have no operation with this id.')
      return toOperation(row)
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
