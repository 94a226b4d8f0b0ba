import type { Deps } from '@posta/common/service/deps.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { and, eq, isNull, sql } from 'drizzle-orm'
import * as v from 'valibot'
import type { Writer } from '../database/commit.ts'
import type { AddEvent } from '../database/events.ts'
import type { Database } from '../database/open.ts'
import { users } from '../database/schema.ts'
import type { Grant } from './access-tokens.ts'
import { GivenPassword, type Tokens } from './credentials.ts'
import type { Passwords } from './passwords.ts'
import { endOldestSessionsOf, randomSecret, sessionExists, startSession } from './sessions.ts'
import { networkOf, type Throttle } from './throttle.ts'
import type { UserRow } from './user.ts'

/** Any text may be tried as an email: one that nobody can have is a user that does not exist. */
export const Login = v.strictObject({
  email: v.pipe(v.string(), v.maxLength(254, 'must have at most 254 characters'), v.toLowerCase()),
  password: GivenPassword,
})

/**
 * @param address the client's IP address
 * @throws Problem `invalid-input`; `too-many-requests`; `overloaded`; `invalid-credentials`, the same and after the same
 * work, for an unknown user, a wrong password and a disabled user
 */
export type LogIn = (login: unknown, address: string) => Promise<Tokens>

export function createLogIn(parts: {
  database: Database
  writer: Writer
  passwords: Passwords
  throttle: Throttle
  grant: Grant
  addEvent: AddEvent
  deps: Pick<Deps, 'now' | 'newId'>
}): LogIn {
  const { database, writer, passwords, throttle, grant, addEvent, deps } = parts

  /** The new session's first refresh token; undefined if the user is no longer as they were when the password was checked. */
  async function begin(user: UserRow, password: string, source: string): Promise<string | undefined> {
    const token = randomSecret()
    const sessionId = deps.newId()
    const isSame = and(eq(users.id, user.id), eq(users.passwordHash, user.passwordHash), isNull(users.disabledAt))
    const passwordHash = passwords.isOutdated(user.passwordHash) ? await passwords.hash(password, source) : undefined
    const [started] = await writer.write([
      startSession(
        { token, sessionId, userId: user.id, nowMs: deps.now() },
        sql`EXISTS (SELECT 1 FROM ${users} WHERE ${isSame})`,
      ),
      endOldestSessionsOf(user.id),
      addEvent('posta.user.logged-in', { user: user.id, session: sessionId }, sessionExists(sessionId)),
      ...(passwordHash ? [database.update(users).set({ passwordHash }).where(isSame)] : []),
    ])
    return started?.rowsAffected === 1 ? token : undefined
  }

  return async (login, address) => {
    const { email, password } = checkInput(Login, login)
    const source = networkOf(address)
    let user: UserRow | undefined
    let token: string | undefined
    await throttle({ email, address }, async () => {
      ;[user] = await database.select().from(users).where(eq(users.email, email))
      const matches = await passwords.verify(password, user?.passwordHash, source)
      if (user && matches && user.disabledAt === null) token = await begin(user, password, source)
      if (token !== undefined) return true
      const reason = !user ? 'unknown-user' : matches && user.disabledAt !== null ? 'disabled' : 'wrong-password'
      await writer.write([addEvent('posta.user.login-failed', { ...(user && { user: user.id }), reason })])
      return false
    })
    if (!user || token === undefined) throw new Problem('invalid-credentials')
    return grant(user, token)
  }
}
