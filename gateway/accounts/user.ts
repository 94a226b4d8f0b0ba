import type { Caller } from '@posta/common/service/auth.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { eq } from 'drizzle-orm'
import * as v from 'valibot'
import type { Database } from '../database/open.ts'
import { users } from '../database/schema.ts'

export type UserRow = typeof users.$inferSelect

/** A user as both APIs answer it. */
export const User = v.object({
  id: v.string(),
  email: v.string(),
  role: v.picklist(['user', 'operator']),
  createdAt: v.pipe(v.string(), v.isoTimestamp()),
})
export type User = v.InferOutput<typeof User>

export function toUser({ id, email, role, createdAt }: Pick<UserRow, 'id' | 'email' | 'role' | 'createdAt'>): User {
  return { id, email, role, createdAt: new Date(createdAt).toISOString() }
}

export type Me = (caller: Caller) => Promise<User>

/** @throws Problem `invalid-token` where the token's user is not one of ours. */
export function createMe(database: Database): Me {
  return async (caller) => {
    const [row] = await database.select().from(users).where(eq(users.id, caller.user))
    if (!row) throw new Problem('invalid-token', 'There is no user of this token.')
    return toUser(row)
  }
}
