import type { AnyEnvelope } from '@posta/common/messages/envelope.ts'
import type { Caller } from '@posta/common/service/auth.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createTokenVerifier } from '@posta/common/service/tokens.ts'
import { createAccounts } from '../accounts/accounts.ts'
import { openKeys } from '../accounts/keys.ts'
import { createPasswords, type Hasher } from '../accounts/passwords.ts'
import { revokedIn } from '../accounts/revocations.ts'
import { eventAdder } from '../database/events.ts'
import { outbox } from '../database/schema.ts'
import { openTemporary } from './database.ts'

export const ISSUER = 'http://gateway.test'
export const ADDRESS = '192.0.2.1'
export const PASSWORD = 'four words nobody says'

/** For tests: accounts on a database of their own, with a clock that only `pass` moves and hashes that cost nothing. */
export async function openAccounts() {
  const opened = await openTemporary()
  let passedMs = 0
  const startedMs = Date.now()
  const deps = { newId: systemDeps.newId, now: () => startedMs + passedMs, monotonicMs: () => passedMs }
  const addEvent = eventAdder(deps)
  const keys = await openKeys({ ...opened, addEvent, deps })
  const hasher = fakeHasher()
  const options = { ...opened, deps, addEvent, keys, passwords: createPasswords(hasher, 8) }
  const accounts = createAccounts({ ...options, issuer: ISSUER })
  return {
    ...options,
    ...accounts,
    hasher,
    verify: createTokenVerifier({ issuer: ISSUER, findKey: keys.find, isRevoked: revokedIn(opened.database), deps }),
    pass(ms: number) {
      passedMs += ms
    },
    /** A new user with `PASSWORD`, logged in. */
    async enter(email = 'ana@example.com') {
      const user = await accounts.register({ email, password: PASSWORD })
      const caller: Caller = { user: user.id, role: user.role }
      return { user, caller, ...(await accounts.logIn({ email, password: PASSWORD }, ADDRESS)) }
    },
    async events(): Promise<AnyEnvelope[]> {
      const rows = await opened.database.select({ event: outbox.event }).from(outbox).orderBy(outbox.id)
      return rows.flatMap(({ event }) => event ?? [])
    },
  }
}

/** Hashes that cost nothing and hide nothing. Counts its calls. */
function fakeHasher() {
  const prefix = '$argon2id$v=19$m=19456,t=2,p=1$'
  const hashOf = (password: Parameters<Hasher['hash']>[0]) => prefix + Buffer.from(String(password)).toString('base64')
  const hasher = {
    verifications: 0,
    /** Runs within each verification. */
    meanwhile: async () => {},
    hash: async (password: Parameters<Hasher['hash']>[0]) => hashOf(password),
    async verify(password: Parameters<Hasher['verify']>[0], hash: Parameters<Hasher['verify']>[1]) {
      hasher.verifications += 1
      await hasher.meanwhile()
      return String(hash).slice(-20) === hashOf(password).slice(-20)
    },
  }
  return hasher
}
