import type { AnyEnvelope } from '@posta/common/messages/envelope.ts'
import type { Caller } from '@posta/common/service/auth.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createTokenVerifier } from '@posta/common/service/tokens.ts'
import { createGrant } from '../accounts/access-tokens.ts'
import { createChangePassword } from '../accounts/change-password.ts'
import { openKeys } from '../accounts/keys.ts'
import { createLogIn } from '../accounts/login.ts'
import { createLogOut } from '../accounts/logout.ts'
import { createPasswords, type Hasher } from '../accounts/passwords.ts'
import { createRefreshSession } from '../accounts/refresh.ts'
import { createRegister } from '../accounts/register.ts'
import { createThrottle } from '../accounts/throttle.ts'
import { createMe } from '../accounts/user.ts'
import { eventAdder } from '../database/events.ts'
import { outbox } from '../database/schema.ts'
import { openTemporary } from './database.ts'

export const ISSUER = 'http://gateway.test'
export const ADDRESS = '192.0.2.1'
export const PASSWORD = 'four words nobody says'

/** For tests: the functions of accounts on a database of their own, with a clock that moves when told and no costly hashes. */
export async function openAccounts() {
  const opened = await openTemporary()
  const { database } = opened
  let passedMs = 0
  const startedMs = Date.now()
  const deps = { newId: systemDeps.newId, now: () => startedMs + passedMs, monotonicMs: () => passedMs }
  const addEvent = eventAdder(deps)
  const keys = await openKeys({ ...opened, addEvent, deps })
  const hasher = fakeHasher()
  const passwords = createPasswords(hasher, 8)
  const throttle = createThrottle(deps)
  const all = { ...opened, deps, addEvent, passwords, throttle, grant: createGrant({ issuer: ISSUER, keys, deps }) }
  const register = createRegister(all)
  const logIn = createLogIn(all)
  return {
    ...all,
    keys,
    hasher,
    register,
    logIn,
    refresh: createRefreshSession(all),
    logOut: createLogOut(all),
    changePassword: createChangePassword(all),
    me: createMe(database),
    verify: createTokenVerifier({ issuer: ISSUER, findKey: keys.find, deps }),
    pass(ms: number) {
      passedMs += ms
    },
    /** A new user with `PASSWORD`, logged in. */
    async enter(email = 'ana@example.com') {
      const user = await register({ email, password: PASSWORD })
      const caller: Caller = { user: user.id, role: user.role }
      return { user, caller, ...(await logIn({ email, password: PASSWORD }, ADDRESS)) }
    },
    async events(): Promise<AnyEnvelope[]> {
      const rows = await database.select({ event: outbox.event }).from(outbox).orderBy(outbox.id)
      return rows.flatMap(({ event }) => event ?? [])
    },
  }
}

/** Hashes that cost nothing and hide nothing; counts what it is asked to do. */
function fakeHasher() {
  const prefix = '$argon2id$v=19$m=19456,t=2,p=1$'
  const hashOf = (password: Parameters<Hasher['hash']>[0]) => prefix + Buffer.from(String(password)).toString('base64')
  const hasher = {
    verifications: 0,
    hashes: 0,
    /** Runs within each verification. */
    meanwhile: async () => {},
    async hash(password: Parameters<Hasher['hash']>[0]) {
      hasher.hashes += 1
      return hashOf(password)
    },
    async verify(password: Parameters<Hasher['verify']>[0], hash: Parameters<Hasher['verify']>[1]) {
      hasher.verifications += 1
      await hasher.meanwhile()
      return String(hash).slice(-20) === hashOf(password).slice(-20)
    },
  }
  return hasher
}
