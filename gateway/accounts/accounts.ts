import type { Deps } from '@posta/common/service/deps.ts'
import type { Quotas } from '../quotas.ts'
import { createGrant } from './access-tokens.ts'
import { createChangePassword } from './change-password.ts'
import type { Keys } from './keys.ts'
import { createLogIn } from './login.ts'
import { createLogOut } from './logout.ts'
import type { AccountOptions } from './options.ts'
import { createOwnSessions } from './own-sessions.ts'
import { createRefresh } from './refresh.ts'
import { createRegister } from './register.ts'
import { createThrottle } from './throttle.ts'
import { createMe } from './user.ts'

export type Accounts = ReturnType<typeof createAccounts>

/**
 * What users do with their accounts, for REST and GraphQL alike.
 * @param options.issuer of the access tokens
 */
export function createAccounts(
  options: AccountOptions & {
    issuer: string
    keys: Pick<Keys, 'current'>
    quotas?: Quotas
    deps: Pick<Deps, 'monotonicMs'>
  },
) {
  const all = { ...options, grant: createGrant(options), throttle: createThrottle(options.deps) }
  return {
    register: createRegister(all),
    logIn: createLogIn(all),
    refresh: createRefresh(all),
    logOut: createLogOut(all),
    changePassword: createChangePassword(all),
    me: createMe(all),
    ...createOwnSessions(all),
  }
}
