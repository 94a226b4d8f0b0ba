import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { and, eq, isNull, sql } from 'drizzle-orm'
import * as v from 'valibot'
import { refreshTokens, users } from '../database/schema.ts'
import { countUse, defaultQuotas, exceeded, type Quotas, type Role, roomOf } from '../quotas.ts'
import type { Grant } from './access-tokens.ts'
import { RefreshToken, type Tokens } from './credentials.ts'
import type { AccountOptions } from './options.ts'
import {
  continueSession,
  decideRefresh,
  endSession,
  hashToken,
  type RefreshTokenRow,
  randomSecret,
  sessionExists,
  successorOf,
} from './sessions.ts'

export const Refresh = v.strictObject({ refreshToken: RefreshToken })

/**
 * Makes the function that replaces a refresh token. Presented again within 30 s, while its successor is unused, a token
 * gets the same successor: a lost answer logs nobody out. Any other reuse ends the session, since one of the two who hold
 * the token is a thief.
 * @throws Problem `invalid-input`, `invalid-credentials`, `quota-exceeded`, `overloaded`
 */
export function createRefresh(
  options: AccountOptions & { grant: Grant; quotas?: Quotas },
): (refresh: unknown) => Promise<Tokens> {
  const { database, writer, grant, addEvent, quotas = defaultQuotas, deps } = options

  /** The token's row and user, its successor and the successor's row. Undefined where its user is disabled. */
  async function find(token: string) {
    const [found] = await database
      .select({ row: refreshTokens, user: users })
      .from(refreshTokens)
      .innerJoin(users, eq(users.id, refreshTokens.userId))
      .where(and(eq(refreshTokens.hash, hashToken(token)), isNull(users.disabledAt)))
    if (!found) return undefined
    const { successorSalt } = found.row
    if (successorSalt === null) return { ...found, successor: undefined, next: undefined }
    const successor = successorOf(token, successorSalt)
    const isSuccessor = eq(refreshTokens.hash, hashToken(successor))
    const [next] = await database.select().from(refreshTokens).where(isSuccessor)
    return { ...found, successor, next }
  }

  /** Does nothing if the token was used since `row` was read, or if the user's quota is used up. */
  async function rotate(row: RefreshTokenRow, token: string, role: Role): Promise<void> {
    const salt = randomSecret()
    const nowMs = deps.now()
    const isUsedHere = and(eq(refreshTokens.hash, row.hash), eq(refreshTokens.successorSalt, salt))
    const wasUsedHere = sql`EXISTS (SELECT 1 FROM ${refreshTokens} WHERE ${isUsedHere})`
    const room = roomOf(quotas, 'refreshes-per-hour', { user: row.userId, role, atMs: nowMs })
    const used = sql`SELECT ${row.userId} AS user, ${nowMs} AS at_ms, 1 AS used WHERE ${wasUsedHere}`
    await writer.write([
      database
        .update(refreshTokens)
        .set({ usedAt: nowMs, successorSalt: salt })
        .where(and(eq(refreshTokens.hash, row.hash), isNull(refreshTokens.usedAt), sql`${room} > 0`)),
      continueSession(row, successorOf(token, salt), nowMs, wasUsedHere),
      addEvent('posta.session.refreshed', { user: row.userId, session: row.sessionId }, wasUsedHere),
      countUse('refreshes-per-hour', used),
    ])
  }

  /** @throws Problem `quota-exceeded`, if the quota is used up */
  async function refuse({ id, role }: { id: string; role: Role }): Promise<void> {
    const use = { user: id, role, atMs: deps.now() }
    const problem = await exceeded(database, quotas, use, { 'refreshes-per-hour': 1 })
    if (problem) throw problem
  }

  return async (refresh) => {
    const { refreshToken } = checkInput(Refresh, refresh)
    let found = await find(refreshToken)
    if (found && decideRefresh(found.row, undefined, deps.now()) === 'rotate') {
      await rotate(found.row, refreshToken, found.user.role)
      // Of two requests at the same time one has rotated. From here on both are repeats.
      found = await find(refreshToken)
      if (found?.row.usedAt === null) await refuse(found.user)
    }
    const decision = found && decideRefresh(found.row, found.next, deps.now())
    if (found?.successor !== undefined && decision === 'repeat')
      return grant(found.user, found.row.sessionId, found.successor)
    if (found && decision === 'reuse') {
      const { userId, sessionId } = found.row
      const event = { user: userId, session: sessionId }
      await writer.write([
        addEvent('posta.session.reuse-detected', event, sessionExists(sessionId)),
        ...endSession(sessionId, deps.now()),
      ])
    }
    throw new Problem('invalid-credentials', 'The refresh token is not valid, or its session has ended.')
  }
}
