import type { Deps } from '@posta/common/service/deps.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { eq, sql } from 'drizzle-orm'
import * as v from 'valibot'
import type { Writer } from '../database/commit.ts'
import type { AddEvent } from '../database/events.ts'
import type { Database } from '../database/open.ts'
import { users } from '../database/schema.ts'
import { refuseCommon } from './common-passwords.ts'
import { Email, NewPassword } from './credentials.ts'
import type { Passwords } from './passwords.ts'
import { networkOf } from './throttle.ts'
import { toUser, type User, type UserRow } from './user.ts'

export const Registration = v.strictObject({ email: Email, password: NewPassword })

/**
 * @param options.address the client's IP address, where there is one
 * @throws Problem `invalid-input`, `email-taken`, `overloaded`
 */
export type Register = (registration: unknown, options?: { address?: string; role?: UserRow['role'] }) => Promise<User>

export function createRegister(parts: {
  database: Database
  writer: Writer
  passwords: Passwords
  addEvent: AddEvent
  deps: Pick<Deps, 'now' | 'newId'>
}): Register {
  const { database, writer, passwords, addEvent, deps } = parts
  return async (registration, { address = '', role = 'user' } = {}) => {
    const { email, password } = checkInput(Registration, registration)
    refuseCommon(password, email, '#/password')
    const taken = () => new Problem('email-taken')
    // Before the costly part; whether it is still free is decided by the insert.
    const [other] = await database.select({ id: users.id }).from(users).where(eq(users.email, email))
    if (other) throw taken()

    const passwordHash = await passwords.hash(password, networkOf(address))
    const row = { id: deps.newId(), email, role, passwordHash, createdAt: deps.now() }
    const exists = sql`EXISTS (SELECT 1 FROM ${users} WHERE ${users.id} = ${row.id})`
    const [inserted] = await writer.write([
      database.insert(users).values(row).onConflictDoNothing(),
      addEvent('posta.user.registered', { user: row.id }, exists),
    ])
    if (inserted?.rowsAffected !== 1) throw taken()
    return toUser(row)
  }
}
