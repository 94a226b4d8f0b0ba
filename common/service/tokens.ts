import { decodeHeader, verify } from 'hono/utils/jwt/jwt'
import { LRUCache } from 'lru-cache'
import * as v from 'valibot'
import { NAME } from '../name.ts'
import type { TokenVerifier } from './auth.ts'
import type { Deps } from './deps.ts'
import { Problem } from './problem.ts'

/** A public Ed25519 key (RFC 8037). Anything else in a key set is passed over. */
export const PublicKey = v.object({
  kty: v.literal('OKP'),
  crv: v.literal('Ed25519'),
  x: v.pipe(v.string(), v.regex(/^[\w-]{43}$/)),
  kid: v.pipe(v.string(), v.minLength(1), v.maxLength(128)),
  alg: v.literal('EdDSA'),
  use: v.literal('sig'),
})
export type PublicKey = v.InferOutput<typeof PublicKey>

/** Finds the key with an id. Undefined: there is none. @throws Problem `keys-unavailable` */
export type FindKey = (kid: string) => Promise<PublicKey | undefined>

const Claims = v.object({
  sub: v.pipe(v.string(), v.minLength(1)),
  role: v.picklist(['user', 'operator']),
  jti: v.string(),
  iat: v.number(),
  exp: v.number(),
})

const MAX_TOKEN_CHARACTERS = 2048
const REMEMBERED_TOKENS = 10_000

/**
 * Checks access tokens: EdDSA alone, by a key of ours alone (what the token itself brings as `jwk` or `jku` is never
 * looked at), with issuer, audience and expiry (RFC 8725). A token that has passed is remembered until it expires.
 */
export function createTokenVerifier(options: {
  issuer: string
  findKey: FindKey
  deps: Pick<Deps, 'now'>
}): TokenVerifier {
  const { issuer, findKey, deps } = options
  const passed = new LRUCache<string, v.InferOutput<typeof Claims>>({ max: REMEMBERED_TOKENS })
  const imported = new LRUCache<string, CryptoKey>({ max: 16 })
  const refused = new Problem('invalid-token', 'The access token is invalid or has expired.')

  async function cryptoKey(key: PublicKey): Promise<CryptoKey> {
    const id = `${key.kid}.${key.x}`
    const known = imported.get(id)
    if (known) return known
    const made = await crypto.subtle.importKey('jwk', key, { name: 'Ed25519' }, false, ['verify'])
    imported.set(id, made)
    return made
  }

  async function claimsOf(token: string): Promise<v.InferOutput<typeof Claims>> {
    const kid = keyIdOf(token)
    const key = kid === undefined ? undefined : await findKey(kid)
    if (!key) throw refused
    try {
      // The clocks of two machines differ: `iat` a moment ahead is no forgery. The library checks `exp` where there is one.
      const payload = await verify(token, await cryptoKey(key), { alg: 'EdDSA', iss: issuer, aud: NAME, iat: false })
      return v.parse(Claims, payload)
    } catch {
      // Its messages hold the token.
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
    return { user: claims.sub, role: claims.role }
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
 * The keys at a JWK set's URL, fetched when first needed, every 5 minutes after that, and, at most every 10 s, for an id
 * that is not among them. When a fetch fails the keys of the one before go on serving.
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
    keys = new Map(found.flatMap((key) => (v.is(PublicKey, key) ? [[key.kid, v.parse(PublicKey, key)] as const] : [])))
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
    // A key that is known serves at once; its refresh goes on behind.
    if (known) return known
    await refreshed
    if (!keys) throw new Problem('keys-unavailable', undefined, { retryAfterS: 5, cause: failure })
    return keys.get(kid)
  }
}
