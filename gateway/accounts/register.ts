import { eventNetwork, networkOf } from '@posta/common/service/network.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { eq } from 'drizzle-orm'
import * as v from 'valibot'
import { users } from '../database/schema.ts'
import type { Statement } from '../database/transaction.ts'
import { refuseCommon } from './common-passwords.ts'
import { Email, NewPassword } from './credentials.ts'
import type { AccountOptions } from './options.ts'
import { registrationCounts, type Throttle } from './throttle.ts'
import { toUser, type User, type UserRow, userExists } from './user.ts'

export const Registration = v.strictObject({ email: Email, password: NewPassword })

/** Who asks to register over HTTP. */
export interface Registrant {
  /** The client's IP address. */
  readonly address: string
  /** The request's header `Registration-Proof`, if it has one. */
  readonly proof?: string | undefined
}

/**
 * The place for a proof of work, a CAPTCHA or an invitation: gateway calls it, if it was given one in its deps, before a
 * registration costs a hash or a look-up. It returns where the registrant may register, and throws a Problem where not.
 * @example
 * // A proof of work: the client looks for a text whose hash begins with 20 zero bits.
 * const checkRegistration: CheckRegistration = async ({ email, proof = '' }) => {
 *   const hash = createHash('sha256').update(`${email} ${proof}`).digest()
 *   if (hash.readUIntBE(0, 3) >= 16) throw new Problem('too-many-requests', 'The Registration-Proof is missing or wrong.')
 * }
 * await createGateway(config, { ...systemDeps, checkRegistration }, listener)
 */
export type CheckRegistration = (registration: Registrant & { readonly email: string }) => Promise<void>

/**
 * Makes the function that registers a user for whoever asks over HTTP.
 * @throws Problem `invalid-input`, `email-taken`, `too-many-requests`, `overloaded`, and those of `checkRegistration`
 */
export function createRegister(
  options: AccountOptions & {
    throttle: Throttle
    registrationsPerHour: number
    checkRegistration?: CheckRegistration | undefined
  },
): (registration: unknown, by: Registrant) => Promise<User> {
  const { throttle, registrationsPerHour, checkRegistration } = options
  const addUser = createAddUser(options)
  return async (registration, by) => {
    const checked = checkRegistrationInput(registration)
    using attempt = await throttle(registrationCounts(by.address, registrationsPerHour))
    await checkRegistration?.({ ...by, email: checked.email })
    return addUser(checked, { address: by.address, more: [attempt.count] })
  }
}

/** `more` is written with the user, and also where the email is taken. */
type AddUser = (
  registration: unknown,
  given: { role?: UserRow['role']; address?: string; more?: readonly Statement[] },
) => Promise<User>

/**
 * Makes the function that stores a new user.
 * @throws Problem `invalid-input`, `email-taken`, `overloaded`
 */
export function createAddUser(options: AccountOptions): AddUser {
  const { database, writer, passwords, addEvent, deps } = options
  return async (registration, { role = 'user', address = '', more = [] }) => {
    const { email, password } = checkRegistrationInput(registration)
    // Looked up first, to spare the hash. If another takes the email meanwhile, the insert finds out.
    const [other] = await database.select({ id: users.id }).from(users).where(eq(users.email, email))
    if (other) {
      await writer.write(more)
      throw new Problem('email-taken')
    }

    const passwordHash = await passwords.hash(password, { lane: 'registration', source: networkOf(address) })
    const row = { id: deps.newId(), email, role, passwordHash, createdAt: deps.now() }
    const exists = userExists(eq(users.id, row.id))
    const [inserted] = await writer.write([
      database.insert(users).values(row).onConflictDoNothing(),
      addEvent('posta.user.registered', { user: row.id, network: eventNetwork(address) }, exists),
      ...(role === 'operator' ? [addEvent('posta.user.role-changed', { user: row.id, role }, exists)] : []),
      ...more,
    ])
    if (inserted?.rowsAffected !== 1) throw new Problem('email-taken')
    return toUser(row)
  }
}

function checkRegistrationInput(registration: unknown) {
  const checked = checkInput(Registration, registration)
  refuseCommon(checked.password, checked.email, '#/password')
  return checked
}
