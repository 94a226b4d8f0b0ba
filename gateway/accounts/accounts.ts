import type { Deps } from '@posta/common/service/deps.ts'
import type { Grant } from './access-tokens.ts'
import { createChangePassword } from './change-password.ts'
import { createLogIn } from './login.ts'
import { createLogOut } from './logout.ts'
import type { AccountOptions } from './options.ts'
import { createRefresh } from './refresh.ts'
import { createRegister } from './register.ts'
import { createThrottle } from './throttle.ts'
import { createMe } from './user.ts'

export type Accounts = ReturnType<typeof createAccounts>

/** What users do with their accounts, for REST and GraphQL alike. */
export function createAccounts(options: AccountOptions & { grant: Grant; deps: Pick<Deps, 'monotonicMs'> }) {
  const all = { ...options, throttle: createThrottle(options.deps) }
  return {
    register: createRegister(all),
    logIn: createLogIn(all),
    refresh: createRefresh(all),
    logOut: createLogOut(all),
    changePassword: createChangePassword(all),
    me: createMe(all),
  }
}
