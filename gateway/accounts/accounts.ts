import type { Deps } from '@posta/common/service/deps.ts'
import type { Writer } from '../database/commit.ts'
import { eventAdder } from '../database/events.ts'
import type { Database } from '../database/open.ts'
import { createGrant } from './access-tokens.ts'
import { type ChangePassword, createChangePassword } from './change-password.ts'
import type { Keys } from './keys.ts'
import { createLogIn, type LogIn } from './login.ts'
import { createLogOut, type LogOut } from './logout.ts'
import { createPasswords, type Passwords } from './passwords.ts'
import { createRefreshSession, type RefreshSession } from './refresh.ts'
import { createRegister, type Register } from './register.ts'
import { createThrottle } from './throttle.ts'
import { createMe, type Me } from './user.ts'

/** What both APIs offer of accounts. Inputs are checked here. */
export interface Accounts {
  readonly register: Register
  readonly logIn: LogIn
  readonly refresh: RefreshSession
  readonly logOut: LogOut
  readonly changePassword: ChangePassword
  readonly me: Me
}

/** @param parts.issuer the `iss` of access tokens */
export function createAccounts(parts: {
  database: Database
  writer: Writer
  keys: Keys
  issuer: string
  deps: Pick<Deps, 'now' | 'monotonicMs' | 'newId'>
  passwords?: Passwords
}): Accounts {
  const { deps, passwords = createPasswords() } = parts
  const all = {
    ...parts,
    passwords,
    throttle: createThrottle(deps),
    addEvent: eventAdder(deps),
    grant: createGrant(parts),
  }
  return {
    register: createRegister(all),
    logIn: createLogIn(all),
    refresh: createRefreshSession(all),
    logOut: createLogOut(all),
    changePassword: createChangePassword(all),
    me: createMe(all.database),
  }
}
