import { eventNetwork, networkOf } from '@posta/common/service/network.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { and, eq, isNull } from 'drizzle-orm'
import * as v from 'valibot'
import { users } from '../database/schema.ts'
import type { Statement } from '../database/transaction.ts'
import type { Grant } from './access-tokens.ts'
import { DeviceToken, GivenPassword, type Tokens } from './credentials.ts'
import type { Devices } from './devices.ts'
import type { AccountOptions } from './options.ts'
import type { Asking } from './passwords.ts'
import { endOldestSessionsOf, randomSecret, sessionExists, startSession } from './sessions.ts'
import { loginCounts, type Throttle } from './throttle.ts'
import { type UserRow, userExists } from './user.ts'

/** Any text may be tried as an email. One that breaks the rules for emails is answered like an unknown user. */
export const Login = v.strictObject({
  email: v.pipe(v.string(), v.maxLength(254, 'must have at most 254 characters'), v.toLowerCase()),
  password: GivenPassword,
  deviceToken: v.optional(DeviceToken),
})

/**
 * Makes the function that logs a user in: it starts a session and resolves to its tokens, and a token of this device.
 * `address` is the client's IP address.
 * @throws Problem `invalid-input`; `too-many-requests`; `overloaded`; `invalid-credentials`, the same and after the same
 * work for an unknown user, a wrong password and a disabled user
 */
export function createLogIn(
  options: AccountOptions & { throttle: Throttle; devices: Devices; grant: Grant },
): (login: unknown, address: string) => Promise<Tokens> {
  const { database, writer, passwords, throttle, devices, grant, addEvent, deps } = options

  /**
   * Starts a session, and runs `more` with it. Undefined where the user has changed since the password was checked.
   */
  async function begin(
    user: UserRow,
    password: string,
    by: Asking,
    { network, more }: { network: string | undefined; more: readonly Statement[] },
  ) {
    const token = randomSecret()
    const sessionId = deps.newId()
    const isSame = and(eq(users.id, user.id), eq(users.passwordHash, user.passwordHash), isNull(users.disabledAt))
    const passwordHash = passwords.isOutdated(user.passwordHash) ? await passwords.hash(password, by) : undefined
    const [started] = await writer.write([
      startSession({ token, sessionId, userId: user.id, nowMs: deps.now() }, userExists(isSame)),
      ...endOldestSessionsOf(user.id, deps.now()),
      addEvent('posta.user.logged-in', { user: user.id, session: sessionId, network }, sessionExists(sessionId)),
      ...(passwordHash ? [database.update(users).set({ passwordHash }).where(isSame)] : []),
      ...more,
    ])
    return started?.rowsAffected === 1 ? { token, sessionId } : undefined
  }

  return async (login, address) => {
    const { email, password, deviceToken } = checkInput(Login, login)
    const device = devices.identify(email, deviceToken)
    const by: Asking = { lane: device === undefined ? 'login' : 'known', source: networkOf(address) }
    const network = eventNetwork(address)
    using attempt = await throttle(loginCounts({ email, address, device }))
    const [user] = await database.select().from(users).where(eq(users.email, email))
    const matches = await passwords.verify(password, user?.passwordHash, by)
    const isDisabled = user !== undefined && user.disabledAt !== null
    const session =
      user && matches && !isDisabled ? await begin(user, password, by, { network, more: attempt.forget }) : undefined
    if (!user || !session) {
      const reason = !user ? 'unknown-user' : matches && isDisabled ? 'disabled' : 'wrong-password'
      await writer.write([
        addEvent('posta.user.login-failed', { ...(user && { user: user.id }), reason, network }),
        attempt.count,
      ])
      throw new Problem('invalid-credentials')
    }
    return { ...(await grant(user, session.sessionId, session.token)), deviceToken: devices.issue(email, deviceToken) }
  }
}
