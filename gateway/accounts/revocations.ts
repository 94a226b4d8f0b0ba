import type { IsRevoked, Revocations } from '@posta/common/service/revocations.ts'
import { ACCESS_TOKEN_LIFETIME_S } from '@posta/common/service/tokens.ts'
import { eq, gt, sql } from 'drizzle-orm'
import type { Database } from '../database/open.ts'
import { revocations, users } from '../database/schema.ts'
import type { Statement } from '../database/transaction.ts'
import { sessionExists } from './sessions.ts'

/** How long a revocation counts: as long as an access token of before may live, and clocks may differ. */
const KEPT_MS = (ACCESS_TOKEN_LIFETIME_S + 60) * 1000

/** Tells the other services that the user's role changed, or that they were disabled or enabled. */
export const revoke = (userId: string, nowMs: number): Statement => sql`
  INSERT INTO ${revocations} (subject, at) VALUES (${userId}, ${nowMs})
  ON CONFLICT (subject) DO UPDATE SET at = excluded.at`

/**
 * At gateway: whether the user is gone, disabled or has another role by now, or the session has ended. It asks the database
 * each time, by primary key and index.
 */
export function revokedIn(database: Database): IsRevoked {
  return async ({ user, role, session }) => {
    const [found] = await database
      .select({
        role: users.role,
        disabledAt: users.disabledAt,
        hasSession: sessionExists(session ?? '').mapWith(Boolean),
      })
      .from(users)
      .where(eq(users.id, user))
    return !found || found.disabledAt !== null || found.role !== role || (session !== undefined && !found.hasSession)
  }
}

/** What the other services have to know: see `remoteRevocations`. */
export async function listRevocations(database: Database, nowMs: number): Promise<Revocations> {
  const found = await database
    .select({ subject: revocations.subject, user: users.id, role: users.role, disabledAt: users.disabledAt })
    .from(revocations)
    .leftJoin(users, eq(users.id, revocations.subject))
    .where(gt(revocations.at, nowMs - KEPT_MS))
  return {
    sessions: found.flatMap(({ subject, user }) => (user === null ? [subject] : [])),
    users: found.flatMap(({ user, role, disabledAt }) => {
      if (user === null) return []
      return role === null || disabledAt !== null ? [{ id: user }] : [{ id: user, role }]
    }),
  }
}

/** For maintenance: revocations of tokens that have all expired. */
export const expiredRevocations = (nowMs: number) => (atOnce: number) =>
  sql`
  DELETE FROM ${revocations} WHERE subject IN (
    SELECT subject FROM ${revocations} WHERE at <= ${nowMs - KEPT_MS} LIMIT ${atOnce})`
