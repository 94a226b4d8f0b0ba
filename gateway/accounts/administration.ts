import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { asc, eq, gt } from 'drizzle-orm'
import * as v from 'valibot'
import { users } from '../database/schema.ts'
import type { Statement } from '../database/transaction.ts'
import { refuseCommon } from './common-passwords.ts'
import { Email, NewPassword } from './credentials.ts'
import type { AccountOptions } from './options.ts'
import { endSessionsOf } from './sessions.ts'
import type { UserRow } from './user.ts'

/** What the operator of gateway does with its users, by email. Each rejects with Problem `not-found` for an unknown email. */
export interface Administration {
  /** In the order in which they registered. */
  list(): AsyncIterable<UserRow>
  /** Takes effect with the user's next access token, within 15 minutes. */
  setRole(email: string, role: UserRow['role']): Promise<void>
  /** Ends the user's sessions. An access token stays valid until it expires, within 15 minutes. */
  disable(email: string): Promise<void>
  enable(email: string): Promise<void>
  /** Ends the user's sessions. @throws Problem `invalid-input` where nobody could register with this password */
  setPassword(email: string, password: string): Promise<void>
}

const PAGE = 500

export function createAdministration(options: AccountOptions): Administration {
  const { database, writer, passwords, addEvent, deps } = options

  async function idOf(email: string): Promise<string> {
    const [user] = await database.select({ id: users.id }).from(users).where(eq(users.email, email.toLowerCase()))
    if (!user) throw new Problem('not-found', 'There is no user with this email.')
    return user.id
  }

  async function change(id: string, changes: Partial<UserRow>, ...more: readonly Statement[]): Promise<void> {
    await writer.write([database.update(users).set(changes).where(eq(users.id, id)), ...more])
  }

  return {
    async *list() {
      for (let after = ''; ; ) {
        const page = await database.select().from(users).where(gt(users.id, after)).orderBy(asc(users.id)).limit(PAGE)
        yield* page
        const last = page.at(-1)
        if (!last || page.length < PAGE) return
        after = last.id
      }
    },
    async setRole(email, role) {
      await change(await idOf(email), { role })
    },
    async disable(email) {
      const id = await idOf(email)
      await change(id, { disabledAt: deps.now() }, endSessionsOf(id))
    },
    async enable(email) {
      await change(await idOf(email), { disabledAt: null })
    },
    async setPassword(email, password) {
      const id = await idOf(email)
      const checked = checkInput(v.object({ email: Email, password: NewPassword }), { email, password })
      refuseCommon(checked.password, checked.email, '#/password')
      const passwordHash = await passwords.hash(checked.password)
      await change(id, { passwordHash }, endSessionsOf(id), addEvent('posta.user.password-changed', { user: id }))
    },
  }
}
