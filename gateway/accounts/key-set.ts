import { createPrivateKey, createPublicKey } from 'node:crypto'
import { PublicKey } from '@posta/common/service/tokens.ts'
import * as v from 'valibot'
import type { PrivateKey } from '../database/schema.ts'
import { isUniform } from './key-encryption.ts'

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
    v.check(
      ({ keys }) => new Set(keys.map(({ kid }) => kid)).size === keys.length,
      'must not have two keys of one kid',
    ),
    v.check(
      ({ keys }) => !keys.some(isKnown),
      'must not have a key that everyone knows, of zeros or from an RFC: make one with `openssl genpkey -algorithm ed25519`',
    ),
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

/** The private keys of the examples of RFC 8037 (appendix A) and RFC 8032 (section 7.1). */
const PUBLISHED = [
  'nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A',
  'TM0Imyj_ltqdtsNG7BFOD1uKMZ81q6Yk2oz27U-4pvs',
  'xaqN9D-fg3vtt0QvMdy3sWbThTUHbwlLhc46LgtEWPc',
  '9eV2fPFTMZUXYw8iaHa4bIFgzFg7wBN0TGvyVfXMDuU',
  'gz_mJAkje51i7HdYdSCRHpp1nOwdGXVbfakBuW3KPUI',
]

/** Whether anyone could have the key without having stolen it. */
function isKnown({ d }: PrivateKey): boolean {
  return PUBLISHED.includes(d) || isUniform(Buffer.from(d, 'base64url'))
}

export async function createKey(kid: string): Promise<PrivateKey> {
  const pair = await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])
  return v.parse(PrivateKeySchema, { ...(await crypto.subtle.exportKey('jwk', pair.privateKey)), kid, alg: 'EdDSA' })
}

export function publicPart({ kty, crv, x, kid, alg, use }: PrivateKey): PublicKey {
  return { kty, crv, x, kid, alg, use }
}
