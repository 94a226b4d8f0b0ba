import { NAME } from '@posta/common/name.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { ACCESS_TOKEN_LIFETIME_S, signAccessToken } from '@posta/common/service/tokens.ts'
import type { Tokens } from './credentials.ts'
import type { Keys } from './keys.ts'
import type { UserRow } from './user.ts'

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
      exp: iat + ACCESS_TOKEN_LIFETIME_S,
    }
    const accessToken = signAccessToken(claims, key)
    return { accessToken, tokenType: 'Bearer', expiresIn: ACCESS_TOKEN_LIFETIME_S, refreshToken }
  }
}
