import { createHash, hkdfSync, randomBytes } from 'node:crypto'
import { type SQL, sql } from 'drizzle-orm'
import { refreshTokens, revocations } from '../database/schema.ts'
import type { Statement } from '../database/transaction.ts'

export type RefreshTokenRow = typeof refreshTokens.$inferSelect

const DAY_MS = 24 * 60 * 60 * 1000
const IDLE_MS = 30 * DAY_MS
const SESSION_MS = 90 * DAY_MS
/** A further login ends the user's oldest session. */
const MAX_SESSIONS_PER_USER = 50
/**
 * Enough for one refresh every six minutes for 90 days; a session that needs more ends. Each refresh leaves a row, which
 * detects reuse of its token until it expires.
 */
const MAX_REFRESHES_PER_SESSION = 20_000
/** How long after its use a token may be presented again, because the answer was lost. */
const REPEAT_MS = 30 * 1000

/** 256 random bits. */
export const randomSecret = () => randomBytes(32).toString('base64url')

export const hashToken = (token: string) => createHash('sha256').update(token).digest('base64url')

/** The token that follows `token`. Only from `token` and the salt together can it be computed again. */
export function successorOf(token: string, salt: string): string {
  return Buffer.from(hkdfSync('sha256', token, salt, 'successor of a refresh token', 32)).toString('base64url')
}

export type Decision = 'rotate' | 'repeat' | 'reuse' | 'invalid'

/**
 * What to do with a presented refresh token.
 * @param row the token's row
 * @param successor the row of the token that replaced it
 */
export function decideRefresh(
  row: Pick<RefreshTokenRow, 'expiresAt' | 'usedAt' | 'refreshes'>,
  successor: Pick<RefreshTokenRow, 'usedAt'> | undefined,
  nowMs: number,
): Decision {
  if (row.expiresAt <= nowMs) return 'invalid'
  if (row.usedAt === null) return row.refreshes < MAX_REFRESHES_PER_SESSION ? 'rotate' : 'invalid'
  const isRepeat = nowMs - row.usedAt <= REPEAT_MS && successor?.usedAt === null
  return isRepeat ? 'repeat' : 'reuse'
}

/** Stores a session's first token, if `condition` is true when the statement runs. */
export function startSession(
  { token, sessionId, userId, nowMs }: { token: string; sessionId: string; userId: string; nowMs: number },
  condition: SQL,
): Statement {
  const sessionExpiresAt = nowMs + SESSION_MS
  return insertToken({ hash: hashToken(token), sessionId, userId, sessionExpiresAt, refreshes: 0 }, nowMs, condition)
}

/** Stores the successor of the token of `row`, if `condition` is true when the statement runs. */
export function continueSession(row: RefreshTokenRow, token: string, nowMs: number, condition: SQL): Statement {
  return insertToken({ ...row, hash: hashToken(token), refreshes: row.refreshes + 1 }, nowMs, condition)
}

function insertToken(
  row: Pick<RefreshTokenRow, 'hash' | 'sessionId' | 'userId' | 'sessionExpiresAt' | 'refreshes'>,
  nowMs: number,
  condition: SQL,
): Statement {
  const { hash, sessionId, userId, sessionExpiresAt, refreshes } = row
  const expiresAt = Math.min(nowMs + IDLE_MS, sessionExpiresAt)
  return sql`
    INSERT INTO ${refreshTokens} (hash, session_id, user_id, created_at, expires_at, session_expires_at, refreshes)
    SELECT ${hash}, ${sessionId}, ${userId}, ${nowMs}, ${expiresAt}, ${sessionExpiresAt}, ${refreshes} WHERE ${condition}`
}

export const sessionExists = (sessionId: string) =>
  sql`EXISTS (SELECT 1 FROM ${refreshTokens} WHERE ${refreshTokens.sessionId} = ${sessionId})`

/** Ends the sessions of the rows that fulfil the condition, each of which has one unused token, and refuses their access tokens. */
function endSessions(condition: SQL, nowMs: number): readonly Statement[] {
  return [
    sql`
      INSERT INTO ${revocations} (subject, at)
      SELECT session_id, ${nowMs} FROM ${refreshTokens} WHERE used_at IS NULL AND ${condition}
      ON CONFLICT (subject) DO UPDATE SET at = excluded.at`,
    // A session consists of its rows: without them none of its tokens is known any more.
    sql`DELETE FROM ${refreshTokens} WHERE ${condition}`,
  ]
}

export const endSession = (sessionId: string, nowMs: number) => endSessions(sql`session_id = ${sessionId}`, nowMs)

/** Ends all but the user's newest 50 sessions. Each session has one unused token, and session ids sort by time. */
export const endOldestSessionsOf = (userId: string, nowMs: number) =>
  endSessions(
    sql`session_id IN (
      SELECT session_id FROM ${refreshTokens} WHERE user_id = ${userId} AND used_at IS NULL
      ORDER BY session_id DESC LIMIT -1 OFFSET ${MAX_SESSIONS_PER_USER})`,
    nowMs,
  )

/** Ends every session of the user, except that of `keptToken`, if `condition` is true when the statements run. */
export function endSessionsOf(
  userId: string,
  nowMs: number,
  { keptToken, condition = sql`TRUE` }: { keptToken?: string | undefined; condition?: SQL } = {},
) {
  // No token is an empty text.
  const kept = sql`SELECT session_id FROM ${refreshTokens} WHERE hash = ${hashToken(keptToken ?? '')}`
  return endSessions(sql`user_id = ${userId} AND ${condition} AND session_id NOT IN (${kept})`, nowMs)
}
