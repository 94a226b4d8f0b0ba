import { createPrivateKey, sign } from 'node:crypto'
import { decodeHeader, verify } from 'hono/utils/jwt/jwt'
import { LRUCache } from 'lru-cache'
import * as v from 'valibot'
import { NAME } from '../name.ts'
import type { TokenVerifier } from './auth.ts'
import type { Deps } from './deps.ts'
import { Problem } from './problem.ts'
import { createRefresh } from './refresh.ts'
import type { IsRevoked } from './revocations.ts'

/** A public Ed25519 key for signatures (RFC 8037). Other keys of a key set are ignored. */
export const PublicKey = v.object({
  kty: v.literal('OKP'),
  crv: v.literal('Ed25519'),
  x: v.pipe(v.string(), v.regex(/^[\w-]{43}$/)),
  kid: v.pipe(v.string(), v.minLength(1), v.maxLength(128)),
  alg: v.literal('EdDSA'),
  use: v.literal('sig'),
})
export type PublicKey = v.InferOutput<typeof PublicKey>

/** Finds the key with an id. Undefined: no key has it. @throws Problem `keys-unavailable` */
export type FindKey = (kid: string) => Promise<PublicKey | undefined>

/** How long an access token lives at most. One that says it lives longer is refused, whoever signed it. */
export const ACCESS_TOKEN_LIFETIME_S = 15 * 60
/** RFC 9068, section 2.1: nothing else that the same keys sign passes for an access token. */
const ACCESS_TOKEN_TYPE = 'at+jwt'
/** The clocks of two machines may differ by so much. */
const MAX_AHEAD_S = 60

const Time = v.pipe(v.number(), v.safeInteger(), v.minValue(0))
const Claims = v.pipe(
  v.object({
    sub: v.pipe(v.string(), v.minLength(1)),
    role: v.picklist(['user', 'operator']),
    sid: v.optional(v.string()),
    jti: v.string(),
    iat: Time,
    exp: Time,
  }),
  v.check(({ iat, exp }) => exp - iat <= ACCESS_TOKEN_LIFETIME_S),
)

const MAX_TOKEN_CHARACTERS = 2048
const REMEMBERED_TOKENS = 10_000

/** A JWT (RFC 7519) with `typ` in its header, signed with EdDSA. */
export function signJwt(typ: string, claims: object, key: PublicKey & { readonly d: string }): string {
  const part = (content: object) => Buffer.from(JSON.stringify(content)).toString('base64url')
  const signed = `${part({ alg: 'EdDSA', typ, kid: key.kid })}.${part(claims)}`
  const signature = sign(null, Buffer.from(signed), createPrivateKey({ key: { ...key }, format: 'jwk' }))
  return `${signed}.${signature.toString('base64url')}`
}

/** An access token, which a verifier accepts if its claims are right. Times are in seconds. */
export function signAccessToken(
  claims: { iss: string; aud: string } & v.InferInput<typeof Claims>,
  key: PublicKey & { readonly d: string },
): string {
  return signJwt(ACCESS_TOKEN_TYPE, claims, key)
}

/**
 * Checks access tokens (RFC 8725): of their own type, signed with EdDSA by a key that `findKey` knows, of this issuer, for
 * this audience, not expired, not made to live longer than access tokens do, not revoked. A `jwk` or `jku` in the token is
 * ignored. A token that has passed is remembered until it expires, and counts as long as `findKey` still knows its key.
 * @example
 * const verify = createTokenVerifier({ issuer: config.tokenIssuer, findKey: remoteKeys({ url: config.jwksUrl, deps }), deps })
 * const { user, role } = await verify(token)
 */
export function createTokenVerifier(options: {
  issuer: string
  findKey: FindKey
  /** Nothing is, where it is not given. */
  isRevoked?: IsRevoked
  deps: Pick<Deps, 'now'>
}): TokenVerifier {
  const { issuer, findKey, isRevoked, deps } = options
  const passed = new LRUCache<string, { key: PublicKey; claims: v.InferOutput<typeof Claims> }>({
    max: REMEMBERED_TOKENS,
  })
  const refused = new Problem('invalid-token', 'The access token is invalid or has expired.')

  async function claimsOf(token: string, key: PublicKey): Promise<v.InferOutput<typeof Claims>> {
    if (!isCanonical(token)) throw refused
    try {
      // The library compares `iat` with no allowance, and takes a token without `iat` or `exp`; Claims does not.
      const options = { alg: 'EdDSA', typ: ACCESS_TOKEN_TYPE, iss: issuer, aud: NAME, iat: false } as const
      const claims = v.parse(Claims, await verify(token, key, options))
      if (claims.iat * 1000 <= deps.now() + MAX_AHEAD_S * 1000) return claims
    } catch {
      // The library's messages contain the token.
    }
    throw refused
  }

  return async (token) => {
    if (token.length > MAX_TOKEN_CHARACTERS) throw refused
    const before = passed.get(token)
    const kid = before?.key.kid ?? keyIdOf(token)
    const key = kid === undefined ? undefined : await findKey(kid)
    if (!key) throw refused
    let claims = before?.key.x === key.x ? before.claims : undefined
    if (!claims) {
      claims = await claimsOf(token, key)
      passed.set(token, { key, claims })
    }
    if (claims.exp * 1000 <= deps.now()) throw refused
    const { sub: user, role, sid } = claims
    const caller = { user, role, ...(sid !== undefined && { session: sid }) }
    if (await isRevoked?.(caller)) throw refused
    return caller
  }
}

/**
 * Whether each part is base64url as RFC 7515 has it: without padding, and with no bits that mean nothing. Otherwise others
 * could write one token in many ways.
 */
function isCanonical(token: string): boolean {
  return token.split('.').every((part) => Buffer.from(part, 'base64url').toString('base64url') === part)
}

function keyIdOf(token: string): string | undefined {
  try {
    const { kid, alg } = decodeHeader(token)
    return alg === 'EdDSA' && typeof kid === 'string' ? kid : undefined
  } catch {
    return undefined
  }
}

const KeySet = v.object({ keys: v.pipe(v.array(v.unknown()), v.maxLength(100)) })

/** From this age on the set is fetched anew while the keys known so far are used. */
const REFRESH_MS = 20 * 1000
/**
 * From this age on a fetch is waited for. Gateway itself notices within 10 s that a key was revoked: both together are less
 * than the 60 s within which a revoked key counts nowhere.
 */
const STALE_MS = 40 * 1000
const UNKNOWN_KEY_REFRESH_MS = 10 * 1000

/**
 * Finds keys in the JWK set at a URL. The set is fetched when a key is first needed, then every 20 s while it is used, and at
 * most every 10 s for an id that it does not have. A key that left the set is not found after 40 s, except while the set
 * cannot be fetched: then the keys known so far are used.
 */
export function remoteKeys(options: { url: string; deps: Pick<Deps, 'monotonicMs' | 'fetch'> }): FindKey {
  const { url, deps } = options
  let keys: ReadonlyMap<string, PublicKey> | undefined
  let askedAtMs = Number.NEGATIVE_INFINITY
  const refresh = createRefresh({
    url,
    take(body, fromMs) {
      const found = v.parse(KeySet, body).keys
      // Parsed, so that only a key's own members remain.
      keys = new Map(found.filter((key) => v.is(PublicKey, key)).map((key) => [key.kid, v.parse(PublicKey, key)]))
      askedAtMs = fromMs
    },
    deps,
  })

  return async (kid) => {
    let failure: unknown
    const known = keys?.get(kid)
    const refreshed = refresh(known ? REFRESH_MS : keys ? UNKNOWN_KEY_REFRESH_MS : 1000).catch((error: unknown) => {
      failure = error
    })
    if (known && deps.monotonicMs() - askedAtMs < STALE_MS) return known
    await refreshed
    if (!keys) throw new Problem('keys-unavailable', undefined, { retryAfterS: 5, cause: failure })
    return keys.get(kid)
  }
}
