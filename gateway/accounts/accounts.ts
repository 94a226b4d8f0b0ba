import type { Quotas } from '../quotas.ts'
import { createGrant } from './access-tokens.ts'
import { createChangePassword } from './change-password.ts'
import { createDevices } from './devices.ts'
import type { Keys } from './keys.ts'
import { createLogIn } from './login.ts'
import { createLogOut } from './logout.ts'
import type { AccountOptions } from './options.ts'
import { createOwnSessions } from './own-sessions.ts'
import { createRefresh } from './refresh.ts'
import { type CheckRegistration, createRegister } from './register.ts'
import type { Mac } from './secret.ts'
import { createThrottle, type Throttled } from './throttle.ts'
import { createMe } from './user.ts'

export type Accounts = ReturnType<typeof createAccounts>

/**
 * What users do with their accounts, for REST and GraphQL alike.
 * @param options.issuer of the access tokens
 * @param options.mac of `openMac`
 * @param options.registrationsPerHour of each network
 */
export function createAccounts(
  options: AccountOptions & {
    issuer: string
    keys: Pick<Keys, 'current'>
    quotas?: Quotas
    mac: Mac
    registrationsPerHour: number
    checkRegistration?: CheckRegistration | undefined
    onThrottled: (by: Throttled) => void
  },
) {
  const devices = createDevices(options.mac)
  const all = { ...options, devices, grant: createGrant(options), throttle: createThrottle(options) }
  return {
    register: createRegister(all),
    logIn: createLogIn(all),
    refresh: createRefresh(all),
    logOut: createLogOut(all),
    changePassword: createChangePassword(all),
    me: createMe(all),
    devices,
    ...createOwnSessions(all),
  }
}
