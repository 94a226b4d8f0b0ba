import { decodeCursor, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { and, desc, eq, lt } from 'drizzle-orm'
import * as v from 'valibot'
import type { Database } from '../database/open.ts'
import { operations } from '../database/schema.ts'
import { type Operation, toOperation } from './operation.ts'

const Cursor = v.pipe(v.string(), v.maxLength(64))

export interface Read {
  /** @throws Problem `not-found`, also if the operation is another user's. */
  one(user: string, id: string): Promise<Operation>
  /** The user's own, newest first. @throws Problem `malformed-request` if the cursor is not one of this list. */
  page(
    user: string,
    asked: { limit: number; cursor?: string | undefined },
  ): Promise<{ items: Operation[]; next?: string }>
}

export function createRead(database: Database): Read {
  return {
    async one(user, id) {
      const [row] = await database
        .select()
        .from(operations)
        .where(and(eq(operations.id, id), eq(operations.userId, user)))
        .limit(1)
      if (!row) throw new Problem('not-found', 'You have no operation with this id.')
      return toOperation(row)
    },
    async page(user, { limit, cursor }) {
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
