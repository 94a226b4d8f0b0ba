import type { Caller } from '@posta/common/service/auth.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { eq, type SQL, sql } from 'drizzle-orm'
import * as v from 'valibot'
import { users } from '../database/schema.ts'
import type { AccountOptions } from './options.ts'

export type UserRow = typeof users.$inferSelect

/** For a statement. */
export const userExists = (condition: SQL | undefined) => sql`EXISTS (SELECT 1 FROM ${users} WHERE ${condition})`

/** A user as both APIs answer it. */
export const User = v.object({
  id: v.pipe(v.string(), v.uuid()),
  email: v.string(),
  role: v.picklist(['user', 'operator']),
  createdAt: v.pipe(v.string(), v.isoTimestamp()),
})
export type User = v.InferOutput<typeof User>

export function toUser({ id, email, role, createdAt }: Pick<UserRow, 'id' | 'email' | 'role' | 'createdAt'>): User {
  return { id, email, role, createdAt: new Date(createdAt).toISOString() }
}

/**
 * Makes the function that reads the caller's own user.
 * @throws Problem `invalid-token` where the user of the token does not exist
 */
export function createMe({ database }: Pick<AccountOptions, 'database'>): (caller: Caller) => Promise<User> {
  return async (caller) => {
    const [row] = await database.select().from(users).where(eq(users.id, caller.user))
    if (!row) throw new Problem('invalid-token', 'The user of this token does not exist.')
    return toUser(row)
  }
}
