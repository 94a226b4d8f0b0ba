import type { Deps } from '@posta/common/service/deps.ts'
import { checkInput } from '@posta/common/service/problem.ts'
import { eq } from 'drizzle-orm'
import * as v from 'valibot'
import type { Writer } from '../database/commit.ts'
import type { AddEvent } from '../database/events.ts'
import type { Database } from '../database/open.ts'
import { refreshTokens } from '../database/schema.ts'
import { RefreshToken } from './credentials.ts'
import { endSession, hashToken, sessionExists } from './sessions.ts'

export const Logout = v.strictObject({ refreshToken: RefreshToken })

/** Ends the token's session. Resolves just so where there is none. @throws Problem `invalid-input`, `overloaded` */
export type LogOut = (logout: unknown) => Promise<void>

export function createLogOut(parts: {
  database: Database
  writer: Writer
  addEvent: AddEvent
  deps: Pick<Deps, 'now'>
}): LogOut {
  const { database, writer, addEvent, deps } = parts
  return async (logout) => {
    const { refreshToken } = checkInput(Logout, logout)
    const [row] = await database
      .select()
      .from(refreshTokens)
      .where(eq(refreshTokens.hash, hashToken(refreshToken)))
    if (!row || row.expiresAt <= deps.now()) return
    const event = { user: row.userId, session: row.sessionId }
    await writer.write([
      addEvent('posta.user.logged-out', event, sessionExists(row.sessionId)),
      endSession(row.sessionId),
    ])
  }
}
