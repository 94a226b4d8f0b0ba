import type { Caller } from '@posta/common/service/auth.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { and, eq, isNull, sql } from 'drizzle-orm'
import * as v from 'valibot'
import { users } from '../database/schema.ts'
import { refuseCommon } from './common-passwords.ts'
import { GivenPassword, NewPassword, RefreshToken } from './credentials.ts'
import type { AccountOptions } from './options.ts'
import { endSessionsOf } from './sessions.ts'
import { networkOf, type Throttle } from './throttle.ts'

export const PasswordChange = v.strictObject({
  currentPassword: GivenPassword,
  newPassword: NewPassword,
  refreshToken: v.optional(
    v.pipe(
      RefreshToken,
      v.description('The refresh token of the session to keep. Without it every session of the user ends.'),
    ),
  ),
})

/**
 * Makes the function that sets a new password and ends the user's sessions, except that of `refreshToken`. `address` is
 * the client's IP address.
 * @throws Problem `invalid-input`; `invalid-credentials`, where the current password is wrong; `too-many-requests`;
 * `conflict`, where the password was changed at the same time; `overloaded`
 */
export function createChangePassword(
  options: AccountOptions & { throttle: Throttle },
): (change: unknown, caller: Caller, address: string) => Promise<void> {
  const { database, writer, passwords, throttle, addEvent, deps } = options
  return async (change, caller, address) => {
    const { currentPassword, newPassword, refreshToken } = checkInput(PasswordChange, change)
    const isActive = and(eq(users.id, caller.user), isNull(users.disabledAt))
    const [user] = await database.select().from(users).where(isActive)
    if (!user) throw new Problem('invalid-credentials')
    refuseCommon(newPassword, user.email, '#/newPassword')
    const isRight = await throttle({ email: user.email, address }, () =>
      passwords.verify(currentPassword, user.passwordHash, networkOf(address)),
    )
    if (!isRight) throw new Problem('invalid-credentials', 'The current password is wrong.')

    const passwordHash = await passwords.hash(newPassword, networkOf(address))
    const changed = sql`EXISTS (SELECT 1 FROM ${users} WHERE ${and(isActive, eq(users.passwordHash, passwordHash))})`
    const [updated] = await writer.write([
      database
        .update(users)
        .set({ passwordHash })
        .where(and(isActive, eq(users.passwordHash, user.passwordHash))),
      ...endSessionsOf(user.id, deps.now(), { keptToken: refreshToken, condition: changed }),
      addEvent('posta.user.password-changed', { user: user.id }, changed),
    ])
    if (updated?.rowsAffected !== 1) throw new Problem('conflict', 'The password was changed at the same time.')
  }
}
