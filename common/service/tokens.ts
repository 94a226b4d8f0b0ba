import { decodeHeader, verify } from 'hono/utils/jwt/jwt'
import { LRUCache } from 'lru-cache'
import * as v from 'valibot'
import { NAME } from '../name.ts'
import type { TokenVerifier } from './auth.ts'
import type { Deps } from './deps.ts'
import { Problem } from './problem.ts'
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

const Claims = v.object({
  sub: v.pipe(v.string(), v.minLength(1)),
  role: v.picklist(['user', 'operator']),
  sid: v.optional(v.string()),
  jti: v.string(),
  iat: v.number(),
  exp: v.number(),
})

const MAX_TOKEN_CHARACTERS = 2048
const REMEMBERED_TOKENS = 10_000

/**
 * Checks access tokens (RFC 8725): signed with EdDSA by a key that `findKey` knows, of this issuer, for this audience, not
 * expired, not revoked. A `jwk` or `jku` in the token is ignored. A token that has passed is remembered until it expires.
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
  const passed = new LRUCache<string, v.InferOutput<typeof Claims>>({ max: REMEMBERED_TOKENS })
  const refused = new Problem('invalid-token', 'The access token is invalid or has expired.')

  async function claimsOf(token: string): Promise<v.InferOutput<typeof Claims>> {
    const kid = keyIdOf(token)
    const key = kid === undefined ? undefined : await findKey(kid)
    if (!key) throw refused
    try {
      // Clocks of two machines differ, so `iat` may lie in the future. The library takes a token without `exp`; Claims does not.
      const payload = await verify(token, key, { alg: 'EdDSA', iss: issuer, aud: NAME, iat: false })
      return v.parse(Claims, payload)
    } catch {
      // The library's messages contain the token.
      throw refused
    }
  }

  return async (token) => {
    if (token.length > MAX_TOKEN_CHARACTERS) throw refused
    let claims = passed.get(token)
    if (!claims) {
      claims = await claimsOf(token)
      passed.set(token, claims)
    }
    if (claims.exp * 1000 <= deps.now()) throw refused
    const { sub: user, role, sid } = claims
    const caller = { user, role, ...(sid !== undefined && { session: sid }) }
    if (await isRevoked?.(caller)) throw refused
    return caller
  }
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

const REFRESH_MS = 5 * 60 * 1000
const UNKNOWN_KEY_REFRESH_MS = 10 * 1000
const FETCH_TIMEOUT_MS = 3000

/**
 * Finds keys in the JWK set at a URL. The set is fetched when a key is first needed, then every 5 minutes, and at most every
 * 10 s for an id that it does not have. While it cannot be fetched, the keys known so far are used.
 */
export function remoteKeys(options: { url: string; deps: Pick<Deps, 'monotonicMs' | 'fetch'> }): FindKey {
  const { url, deps } = options
  let keys: ReadonlyMap<string, PublicKey> | undefined
  let triedAtMs = Number.NEGATIVE_INFINITY
  let fetching: Promise<void> | undefined

  async function fetchKeys(): Promise<void> {
    const response = await deps.fetch(url, { signal: AbortSignal.timeout(FETCH_TIMEOUT_MS), redirect: 'error' })
    if (!response.ok) throw new Error(`The key set's URL answered ${response.status}.`)
    const found = v.parse(KeySet, await response.json()).keys
    // Parsed, so that only a key's own members remain.
    keys = new Map(found.filter((key) => v.is(PublicKey, key)).map((key) => [key.kid, v.parse(PublicKey, key)]))
  }

  /** Fetches unless a fetch was tried within `everyMs`; calls at the same time share one fetch. */
  async function refresh(everyMs: number): Promise<void> {
    if (!fetching && deps.monotonicMs() - triedAtMs >= everyMs) {
      triedAtMs = deps.monotonicMs()
      fetching = fetchKeys().finally(() => {
        fetching = undefined
      })
    }
    await fetching
  }

  return async (kid) => {
    let failure: unknown
    const known = keys?.get(kid)
    const refreshed = refresh(known ? REFRESH_MS : keys ? UNKNOWN_KEY_REFRESH_MS : 1000).catch((error: unknown) => {
      failure = error
    })
    // A known key is used at once, while the set is refreshed.
    if (known) return known
    await refreshed
    if (!keys) throw new Problem('keys-unavailable', undefined, { retryAfterS: 5, cause: failure })
    return keys.get(kid)
  }
}
