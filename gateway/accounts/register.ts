import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { eq, sql } from 'drizzle-orm'
import * as v from 'valibot'
import { users } from '../database/schema.ts'
import { refuseCommon } from './common-passwords.ts'
import { Email, NewPassword } from './credentials.ts'
import type { AccountOptions } from './options.ts'
import { networkOf } from './throttle.ts'
import { toUser, type User, type UserRow } from './user.ts'

export const Registration = v.strictObject({ email: Email, password: NewPassword })

/** `address`: the client's IP address, where there is one. */
export type Register = (registration: unknown, more?: { address?: string; role?: UserRow['role'] }) => Promise<User>

/**
 * Makes the function that registers a user.
 * @throws Problem `invalid-input`, `email-taken`, `overloaded`
 */
export function createRegister(options: AccountOptions): Register {
  const { database, writer, passwords, addEvent, deps } = options
  return async (registration, { address = '', role = 'user' } = {}) => {
    const { email, password } = checkInput(Registration, registration)
    refuseCommon(password, email, '#/password')
    // Looked up first, to spare the hash. If another takes the email meanwhile, the insert finds out.
    const [other] = await database.select({ id: users.id }).from(users).where(eq(users.email, email))
    if (other) throw new Problem('email-taken')

    const passwordHash = await passwords.hash(password, networkOf(address))
    const row = { id: deps.newId(), email, role, passwordHash, createdAt: deps.now() }
    const exists = sql`EXISTS (SELECT 1 FROM ${users} WHERE ${users.id} = ${row.id})`
    const [inserted] = await writer.write([
      database.insert(users).values(row).onConflictDoNothing(),
      addEvent('posta.user.registered', { user: row.id }, exists),
    ])
    if (inserted?.rowsAffected !== 1) throw new Problem('email-taken')
    return toUser(row)
  }
}
