import { checkInput } from '@posta/common/service/problem.ts'
import { eq } from 'drizzle-orm'
import * as v from 'valibot'
import { refreshTokens } from '../database/schema.ts'
import { RefreshToken } from './credentials.ts'
import type { AccountOptions } from './options.ts'
import { endSession, hashToken, sessionExists } from './sessions.ts'

export const Logout = v.strictObject({ refreshToken: RefreshToken })

/**
 * Makes the function that ends the session of a refresh token. It resolves also where there is no such session.
 * @throws Problem `invalid-input`, `overloaded`
 */
export function createLogOut(options: AccountOptions): (logout: unknown) => Promise<void> {
  const { database, writer, addEvent, deps } = options
  return async (logout) => {
    const { refreshToken } = checkInput(Logout, logout)
    const hasToken = eq(refreshTokens.hash, hashToken(refreshToken))
    const [row] = await database.select().from(refreshTokens).where(hasToken)
    if (!row || row.expiresAt <= deps.now()) return
    const { userId, sessionId } = row
    await writer.write([
      addEvent('posta.user.logged-out', { user: userId, session: sessionId }, sessionExists(sessionId)),
      ...endSession(sessionId, deps.now()),
    ])
  }
}
