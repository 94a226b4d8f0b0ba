import { decode, verify } from 'hono/utils/jwt/jwt'
import * as v from 'valibot'
import { NAME } from '../name.ts'
import { type FindKey, PublicKey, signJwt } from '../service/tokens.ts'

/** An event of an audit chain: its number, and its hash, which covers it and all events before it. */
export const ChainHead = v.object({
  chain: v.pipe(v.string(), v.minLength(1), v.maxLength(256)),
  seq: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  hash: v.pipe(v.string(), v.regex(/^[\da-f]{64}$/)),
})
export type ChainHead = v.InferOutput<typeof ChainHead>

/** The heads of the audit chains at a time, as gateway has signed them. */
export interface Checkpoint {
  readonly issuer: string
  /** By gateway's clock, in whole seconds. */
  readonly atMs: number
  readonly heads: readonly ChainHead[]
  /** Every key that gateway has signed checkpoints with: the newest checkpoint shows which old ones are genuine. */
  readonly keys: readonly PublicKey[]
}

const Claims = v.object({
  iss: v.string(),
  iat: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  heads: v.pipe(v.array(ChainHead), v.minLength(1), v.maxLength(1000)),
  keys: v.pipe(v.array(PublicKey), v.maxLength(100)),
})

/** No access token has this type, and no verifier of access tokens accepts it: neither passes for the other. */
const TYPE = `${NAME}-checkpoint+jwt`
export const MAX_CHECKPOINT_CHARACTERS = 60_000

/** A checkpoint as a JWT (RFC 7519), signed with EdDSA. */
export function signCheckpoint(checkpoint: Checkpoint, key: PublicKey & { readonly d: string }): string {
  const { issuer, atMs, heads, keys } = checkpoint
  const claims: v.InferInput<typeof Claims> = {
    iss: issuer,
    iat: Math.floor(atMs / 1000),
    heads: [...heads],
    keys: [...keys],
  }
  return signJwt(TYPE, claims, key)
}

/** The checkpoint in a JWT; undefined where no key of `findKey` has signed it. Rejects only where `findKey` does. */
export async function readCheckpoint(jwt: string, findKey: FindKey): Promise<Checkpoint | undefined> {
  if (jwt.length > MAX_CHECKPOINT_CHARACTERS) return undefined
  const kid = partsOf(jwt)?.header.kid
  const key = typeof kid === 'string' ? await findKey(kid) : undefined
  if (!key) return undefined
  try {
    const imported = await crypto.subtle.importKey('jwk', key, { name: 'Ed25519' }, false, ['verify'])
    // Without `iat`: the caller compares the time, if it has a clock.
    const { iss, iat, heads, keys } = v.parse(
      Claims,
      await verify(jwt, imported, { alg: 'EdDSA', typ: TYPE, iat: false }),
    )
    return { issuer: iss, atMs: iat * 1000, heads, keys }
  } catch {
    return undefined
  }
}

export function keySet(keys: readonly PublicKey[]): FindKey {
  return async (kid) => keys.find((key) => key.kid === kid)
}

/** The keys in a checkpoint, unverified: for a checkpoint that is trusted already, since it was kept in a safe place. */
export function ownKeys(jwt: string): readonly PublicKey[] {
  const claims = v.safeParse(Claims, partsOf(jwt)?.payload)
  return claims.success ? claims.output.keys : []
}

function partsOf(jwt: string): ReturnType<typeof decode> | undefined {
  try {
    return decode(jwt)
  } catch {
    return undefined
  }
}
