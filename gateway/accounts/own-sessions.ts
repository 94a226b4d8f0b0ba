import type { Caller } from '@posta/common/service/auth.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { and, desc, eq, sql } from 'drizzle-orm'
import * as v from 'valibot'
import { refreshTokens } from '../database/schema.ts'
import type { AccountOptions } from './options.ts'
import { endSession, endSessionsOf, sessionExists } from './sessions.ts'

const Time = v.pipe(v.string(), v.isoTimestamp())

/** A session as its user sees it. `current`: that of the access token. */
export const Session = v.object({
  id: v.string(),
  createdAt: Time,
  refreshedAt: v.pipe(Time, v.description('When its latest tokens were made.')),
  expiresAt: v.pipe(Time, v.description('When it ends, unless it is refreshed before.')),
  current: v.boolean(),
})
export type Session = v.InferOutput<typeof Session>

/** Makes the functions by which users see and end their own sessions. */
export function createOwnSessions({ database, writer, addEvent, deps }: AccountOptions) {
  const iso = (ms: number) => new Date(ms).toISOString()

  async function list({ user, session }: Caller): Promise<Session[]> {
    // A session has one unused token, and ids sort by time.
    const rows = await database
      .select({
        id: refreshTokens.sessionId,
        refreshedAt: refreshTokens.createdAt,
        expiresAt: refreshTokens.expiresAt,
        createdAt: sql<number>`(
          SELECT min(created_at) FROM ${refreshTokens} AS first WHERE first.session_id = ${refreshTokens}.session_id)`,
      })
      .from(refreshTokens)
      .where(and(eq(refreshTokens.userId, user), sql`used_at IS NULL`, sql`expires_at > ${deps.now()}`))
      .orderBy(desc(refreshTokens.sessionId))
    return rows.map(({ id, createdAt, refreshedAt, expiresAt }) => ({
      id,
      createdAt: iso(createdAt),
      refreshedAt: iso(refreshedAt),
      expiresAt: iso(expiresAt),
      current: id === session,
    }))
  }

  const loggedOut = (user: string, session: string) =>
    addEvent('posta.user.logged-out', { user, session }, sessionExists(session))

  return {
    /** The newest first: at most 50. */
    sessions: list,
    /** @throws Problem `not-found`, where the caller has no such session; `overloaded` */
    async endSession(caller: Caller, id: string): Promise<void> {
      const own = await list(caller)
      if (!own.some((session) => session.id === id)) throw new Problem('not-found', 'You have no session with this id.')
      await writer.write([loggedOut(caller.user, id), ...endSession(id, deps.now())])
    },
    /** Ends every session, that of the caller too. @throws Problem `overloaded` */
    async logOutEverywhere(caller: Caller): Promise<void> {
      const own = await list(caller)
      await writer.write([
        ...own.map(({ id }) => loggedOut(caller.user, id)),
        ...endSessionsOf(caller.user, deps.now()),
      ])
    },
  }
}
