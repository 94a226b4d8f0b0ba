import type { Deps } from '@posta/common/service/deps.ts'
import type { Writer } from '../database/commit.ts'
import type { AddEvent } from '../database/events.ts'
import type { Database } from '../database/open.ts'
import type { Grant } from './access-tokens.ts'
import { createChangePassword } from './change-password.ts'
import { createLogIn } from './login.ts'
import { createLogOut } from './logout.ts'
import type { Passwords } from './passwords.ts'
import { createRefreshSession } from './refresh.ts'
import { createRegister } from './register.ts'
import { createThrottle } from './throttle.ts'
import { createMe } from './user.ts'

export type Accounts = ReturnType<typeof createAccounts>

/** What people do with their accounts: the functions that REST and GraphQL are edges over. */
export function createAccounts(parts: {
  database: Database
  writer: Writer
  passwords: Passwords
  grant: Grant
  addEvent: AddEvent
  deps: Deps
}) {
  const all = { ...parts, throttle: createThrottle(parts.deps) }
  return {
    register: createRegister(all),
    logIn: createLogIn(all),
    refreshSession: createRefreshSession(all),
    logOut: createLogOut(all),
    changePassword: createChangePassword(all),
    me: createMe(parts.database),
  }
}
