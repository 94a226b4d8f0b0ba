import { generateKeyPairSync } from 'node:crypto'
import { type ChainHead, keySet, signCheckpoint } from '@posta/common/messages/checkpoint.ts'
import { PublicKey } from '@posta/common/service/tokens.ts'
import * as v from 'valibot'

export const DAY_MS = 24 * 60 * 60 * 1000

/** Signs checkpoints as gateway does. Its key can be rotated; `findKey` finds the current one only. */
export function createSigner() {
  const keys = [createKey('key-1')]
  const current = () => keys.at(-1) ?? keys[0]
  const published = () => keys.map((key) => v.parse(PublicKey, key))
  return {
    published,
    findKey: (kid: string) => keySet(published().slice(-1))(kid),
    rotate() {
      keys.push(createKey(`key-${keys.length + 1}`))
    },
    sign(heads: readonly ChainHead[], atMs: number): string {
      const key = current()
      if (!key) throw new Error('there is a key')
      return signCheckpoint({ issuer: 'http://gateway.test', atMs, heads, keys: published() }, key)
    },
  }
}

function createKey(kid: string): PublicKey & { readonly d: string } {
  const jwk = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  return { ...v.parse(PublicKey, { ...jwk, kid, alg: 'EdDSA', use: 'sig' }), d: v.parse(v.string(), jwk.d) }
}
