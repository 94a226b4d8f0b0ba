import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { and, eq, isNull, sql } from 'drizzle-orm'
import * as v from 'valibot'
import { users } from '../database/schema.ts'
import type { Grant } from './access-tokens.ts'
import { GivenPassword, type Tokens } from './credentials.ts'
import type { AccountOptions } from './options.ts'
import { endOldestSessionsOf, randomSecret, sessionExists, startSession } from './sessions.ts'
import { networkOf, type Throttle } from './throttle.ts'
import type { UserRow } from './user.ts'

/** Any text may be tried as an email. One that breaks the rules for emails is answered like an unknown user. */
export const Login = v.strictObject({
  email: v.pipe(v.string(), v.maxLength(254, 'must have at most 254 characters'), v.toLowerCase()),
  password: GivenPassword,
})

/**
 * Makes the function that logs a user in: it starts a session and resolves to its tokens. `address` is the client's IP
 * address.
 * @throws Problem `invalid-input`; `too-many-requests`; `overloaded`; `invalid-credentials`, the same and after the same
 * work for an unknown user, a wrong password and a disabled user
 */
export function createLogIn(
  options: AccountOptions & { throttle: Throttle; grant: Grant },
): (login: unknown, address: string) => Promise<Tokens> {
  const { database, writer, passwords, throttle, grant, addEvent, deps } = options

  /** Starts a session. Undefined where the user has changed since the password was checked, else its first refresh token. */
  async function begin(user: UserRow, password: string, source: string) {
    const token = randomSecret()
    const sessionId = deps.newId()
    const isSame = and(eq(users.id, user.id), eq(users.passwordHash, user.passwordHash), isNull(users.disabledAt))
    const passwordHash = passwords.isOutdated(user.passwordHash) ? await passwords.hash(password, source) : undefined
    const [started] = await writer.write([
      startSession(
        { token, sessionId, userId: user.id, nowMs: deps.now() },
        sql`EXISTS (SELECT 1 FROM ${users} WHERE ${isSame})`,
      ),
      ...endOldestSessionsOf(user.id, deps.now()),
      addEvent('posta.user.logged-in', { user: user.id, session: sessionId }, sessionExists(sessionId)),
      ...(passwordHash ? [database.update(users).set({ passwordHash }).where(isSame)] : []),
    ])
    return started?.rowsAffected === 1 ? { token, sessionId } : undefined
  }

  return async (login, address) => {
    const { email, password } = checkInput(Login, login)
    const source = networkOf(address)
    const entered = await throttle({ email, address }, async () => {
      const [user] = await database.select().from(users).where(eq(users.email, email))
      const matches = await passwords.verify(password, user?.passwordHash, source)
      const isDisabled = user !== undefined && user.disabledAt !== null
      const session = user && matches && !isDisabled ? await begin(user, password, source) : undefined
      if (user && session) return { user, ...session }
      const reason = !user ? 'unknown-user' : matches && isDisabled ? 'disabled' : 'wrong-password'
      await writer.write([addEvent('posta.user.login-failed', { ...(user && { user: user.id }), reason })])
      return undefined
    })
    if (!entered) throw new Problem('invalid-credentials')
    return grant(entered.user, entered.sessionId, entered.token)
  }
}
