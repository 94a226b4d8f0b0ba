import type { Caller } from '@posta/common/service/auth.ts'
import { eventNetwork, networkOf } from '@posta/common/service/network.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { and, eq, isNull } from 'drizzle-orm'
import * as v from 'valibot'
import { refreshTokens, users } from '../database/schema.ts'
import { refuseCommon } from './common-passwords.ts'
import { DeviceToken, GivenPassword, NewPassword, RefreshToken } from './credentials.ts'
import type { Devices } from './devices.ts'
import type { AccountOptions } from './options.ts'
import type { Asking } from './passwords.ts'
import { decideRefresh, endSessionsOf, hashToken, rotateToken } from './sessions.ts'
import { passwordCounts, type Throttle } from './throttle.ts'
import { userExists } from './user.ts'

export const PasswordChange = v.strictObject({
  currentPassword: GivenPassword,
  newPassword: NewPassword,
  refreshToken: v.optional(
    v.pipe(
      RefreshToken,
      v.description(
        'The refresh token of the session to keep, unused. It is replaced by the one in the header `Refresh-Token` of the answer. Without it every session of the user ends.',
      ),
    ),
  ),
  deviceToken: v.optional(DeviceToken),
})

/**
 * Makes the function that sets a new password and ends the user's sessions, except that of `refreshToken`. It rotates that
 * one, since whoever knew the password may hold its tokens, too, and resolves to its next refresh token. `address` is the
 * client's IP address.
 * @throws Problem `invalid-input`; `invalid-credentials`, where the current password is wrong; `too-many-requests`;
 * `conflict`, where the password was changed at the same time; `overloaded`
 */
export function createChangePassword(
  options: AccountOptions & { throttle: Throttle; devices: Devices },
): (change: unknown, caller: Caller, address: string) => Promise<string | undefined> {
  const { database, writer, passwords, throttle, devices, addEvent, deps } = options

  /** The row of the token, if it is an unused one of this user. */
  async function find(user: string, token: string) {
    const isOwn = and(eq(refreshTokens.hash, hashToken(token)), eq(refreshTokens.userId, user))
    const [row] = await database.select().from(refreshTokens).where(isOwn)
    return row && decideRefresh(row, undefined, '', deps.now()) === 'rotate' ? row : undefined
  }

  return async (change, caller, address) => {
    const { currentPassword, newPassword, refreshToken, deviceToken } = checkInput(PasswordChange, change)
    const isActive = and(eq(users.id, caller.user), isNull(users.disabledAt))
    const [user] = await database.select().from(users).where(isActive)
    if (!user) throw new Problem('invalid-credentials')
    refuseCommon(newPassword, user.email, '#/newPassword')
    const by: Asking = { lane: 'known', source: networkOf(address) }
    const network = eventNetwork(address)
    using attempt = await throttle(passwordCounts({ user: user.id, address }))
    if (!(await passwords.verify(currentPassword, user.passwordHash, by))) {
      await writer.write([attempt.count])
      throw new Problem('invalid-credentials', 'The current password is wrong.')
    }

    const passwordHash = await passwords.hash(newPassword, by)
    const changed = userExists(and(isActive, eq(users.passwordHash, passwordHash)))
    const kept = refreshToken === undefined ? undefined : await find(user.id, refreshToken)
    const usedBy = devices.identify(user.email, deviceToken) ?? ''
    const rotation =
      kept && refreshToken !== undefined
        ? rotateToken(kept, { token: refreshToken, usedBy, nowMs: deps.now() }, changed)
        : undefined
    const [updated, rotated] = await writer.write([
      database
        .update(users)
        .set({ passwordHash })
        .where(and(isActive, eq(users.passwordHash, user.passwordHash))),
      ...(rotation && kept
        ? [
            ...rotation.statements,
            addEvent('posta.session.refreshed', { user: user.id, session: kept.sessionId, network }, rotation.isDone),
          ]
        : []),
      ...endSessionsOf(user.id, deps.now(), { keptToken: rotation?.successor, condition: changed }),
      addEvent('posta.user.password-changed', { user: user.id, network }, changed),
      ...attempt.forget,
    ])
    if (updated?.rowsAffected !== 1) throw new Problem('conflict', 'The password was changed at the same time.')
    return rotation && rotated?.rowsAffected === 1 ? rotation.successor : undefined
  }
}
