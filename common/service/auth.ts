import { Problem } from './problem.ts'

export interface Caller {
  /** The user's id: the token's `sub`. */
  readonly user: string
  readonly role: 'user' | 'operator'
  /** The session that the token was made in: its `sid`. */
  readonly session?: string
}

/** @throws Problem `invalid-token`, or `keys-unavailable` while there is no key to check it with. */
export type TokenVerifier = (token: string) => Promise<Caller>

/** For Hono: a route whose caller is known. */
export interface Authenticated {
  Variables: { caller: Caller }
}

const BEARER = /^Bearer +([\w~+/.-]+=*)$/i

/** The token of an `Authorization` header (RFC 6750, section 2.1). @throws Problem where there is none */
export function bearerToken(authorization: string | null | undefined): string {
  if (!authorization) throw new Problem('invalid-token', 'The request has no Authorization header.')
  const token = BEARER.exec(authorization)?.[1]
  if (!token) throw new Problem('invalid-token', 'The Authorization header is not of the form `Bearer <token>`.')
  return token
}

/** The caller whose token is in an `Authorization` header. @throws Problem */
export async function authenticate(authorization: string | null | undefined, verify: TokenVerifier): Promise<Caller> {
  return verify(bearerToken(authorization))
}
