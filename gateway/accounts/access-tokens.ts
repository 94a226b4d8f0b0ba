import { NAME } from '@posta/common/name.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { sign } from 'hono/jwt'
import type { Tokens } from './credentials.ts'
import type { Keys } from './keys.ts'
import type { UserRow } from './user.ts'

export const LIFETIME_S = 15 * 60

/** Makes the answer of login and refresh: a new access token, with the claims of RFC 9068 that apply, and `refreshToken`. */
export type Grant = (user: Pick<UserRow, 'id' | 'role'>, session: string, refreshToken: string) => Promise<Tokens>

export function createGrant(options: {
  issuer: string
  keys: Pick<Keys, 'current'>
  deps: Pick<Deps, 'now' | 'newId'>
}): Grant {
  const { issuer, keys, deps } = options
  return async (user, session, refreshToken) => {
    const key = await keys.current()
    const iat = Math.floor(deps.now() / 1000)
    const claims = {
      iss: issuer,
      aud: NAME,
      sub: user.id,
      role: user.role,
      sid: session,
      jti: deps.newId(),
      iat,
      exp: iat + LIFETIME_S,
    }
    const accessToken = await sign(claims, key, key.alg)
    return { accessToken, tokenType: 'Bearer', expiresIn: LIFETIME_S, refreshToken }
  }
}
