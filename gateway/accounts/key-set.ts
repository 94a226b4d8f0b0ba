import { createPrivateKey, createPublicKey } from 'node:crypto'
import { PublicKey } from '@posta/common/service/tokens.ts'
import * as v from 'valibot'
import type { PrivateKey } from '../database/schema.ts'

const { x, alg, use } = PublicKey.entries

const PrivateKeySchema = v.object({
  ...PublicKey.entries,
  d: x,
  alg: v.optional(alg, 'EdDSA'),
  use: v.optional(use, 'sig'),
})

/** A private JWK set (RFC 7517) with at least one key. It is refused with one message, which shows nothing of the set. */
export const PrivateKeySet = v.config(
  v.pipe(
    v.object({ keys: v.tupleWithRest([PrivateKeySchema], PrivateKeySchema) }),
    v.check(({ keys }) => keys.every(isPair)),
  ),
  {
    abortEarly: true,
    message: 'must be a JWK set of Ed25519 private keys (kty, crv, x, d, kid), the first of which signs',
  },
)
export type PrivateKeySet = v.InferOutput<typeof PrivateKeySet>

/** Whether the public key `x` belongs to the private key `d`. */
function isPair(key: PrivateKey): boolean {
  try {
    return createPublicKey(createPrivateKey({ key: { ...key }, format: 'jwk' })).export({ format: 'jwk' }).x === key.x
  } catch {
    return false
  }
}

export async function createKey(kid: string): Promise<PrivateKey> {
  const pair = await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])
  return v.parse(PrivateKeySchema, { ...(await crypto.subtle.exportKey('jwk', pair.privateKey)), kid, alg: 'EdDSA' })
}

export function publicPart({ kty, crv, x, kid, alg, use }: PrivateKey): PublicKey {
  return { kty, crv, x, kid, alg, use }
}
