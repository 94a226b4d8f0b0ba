import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { and, asc, eq, gt, isNotNull, isNull, ne } from 'drizzle-orm'
import * as v from 'valibot'
import { users } from '../database/schema.ts'
import type { Statement } from '../database/transaction.ts'
import { refuseCommon } from './common-passwords.ts'
import { Email, NewPassword } from './credentials.ts'
import type { AccountOptions } from './options.ts'
import { revoke } from './revocations.ts'
import { endSessionsOf } from './sessions.ts'
import { type UserRow, userExists } from './user.ts'

export type Administration = ReturnType<typeof createAdministration>

const PAGE = 500

/**
 * What the operator of gateway does with its users, by email. Each function rejects with Problem `not-found` for an unknown
 * email.
 */
export function createAdministration(options: AccountOptions) {
  const { database, writer, passwords, addEvent, deps } = options

  async function idOf(email: string): Promise<string> {
    const [user] = await database.select({ id: users.id }).from(users).where(eq(users.email, email.toLowerCase()))
    if (!user) throw new Problem('not-found', 'There is no user with this email.')
    return user.id
  }

  const update = (id: string, changes: Partial<UserRow>): Statement =>
    database.update(users).set(changes).where(eq(users.id, id))

  return {
    /** In the order in which they registered. */
    async *list(): AsyncGenerator<UserRow, void, void> {
      for (let after = ''; ; ) {
        const page = await database.select().from(users).where(gt(users.id, after)).orderBy(asc(users.id)).limit(PAGE)
        yield* page
        const last = page.at(-1)
        if (!last || page.length < PAGE) return
        after = last.id
      }
    },
    /** Takes effect at gateway at once, and at the other services within 60 s. */
    async setRole(email: string, role: UserRow['role']): Promise<void> {
      const id = await idOf(email)
      const isChange = userExists(and(eq(users.id, id), ne(users.role, role)))
      await writer.write([
        addEvent('posta.user.role-changed', { user: id, role }, isChange),
        update(id, { role }),
        revoke(id, deps.now()),
      ])
    },
    /** Ends the user's sessions. Gateway refuses access tokens of theirs at once, the other services within 60 s. */
    async disable(email: string): Promise<void> {
      const id = await idOf(email)
      const isChange = userExists(and(eq(users.id, id), isNull(users.disabledAt)))
      await writer.write([
        addEvent('posta.user.disabled', { user: id }, isChange),
        update(id, { disabledAt: deps.now() }),
        ...endSessionsOf(id, deps.now()),
        revoke(id, deps.now()),
      ])
    },
    async enable(email: string): Promise<void> {
      const id = await idOf(email)
      const isChange = userExists(and(eq(users.id, id), isNotNull(users.disabledAt)))
      await writer.write([
        addEvent('posta.user.enabled', { user: id }, isChange),
        update(id, { disabledAt: null }),
        revoke(id, deps.now()),
      ])
    },
    /** Ends the user's sessions. @throws Problem `invalid-input` where nobody could register with this password */
    async setPassword(email: string, password: string): Promise<void> {
      const id = await idOf(email)
      const checked = checkInput(v.object({ email: Email, password: NewPassword }), { email, password })
      refuseCommon(checked.password, checked.email, '#/password')
      const passwordHash = await passwords.hash(checked.password)
      await writer.write([
        update(id, { passwordHash }),
        ...endSessionsOf(id, deps.now()),
        addEvent('posta.user.password-changed', { user: id }),
      ])
    },
  }
}
