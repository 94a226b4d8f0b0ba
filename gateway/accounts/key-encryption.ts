import * as v from 'valibot'
import type { PrivateKey, SealedKey } from '../database/schema.ts'

const KEY_BYTES = 32
const IV_BYTES = 12
const MAX_KEYS = 5
const AES = 'AES-GCM'

/**
 * The keys that signing keys are encrypted under: 32 bytes each, in base64, separated by commas. The first one encrypts, and
 * all of them decrypt, so that a former key stays readable until everything is encrypted under the new one.
 */
export const KeyEncryptionKeys = v.pipe(
  v.string(),
  v.transform((text) => text.split(',').map((item) => item.trim())),
  v.minLength(1),
  v.maxLength(MAX_KEYS, `must have at most ${MAX_KEYS} keys`),
  v.everyItem(
    (text) => /^[\w+/-]{43}=?$/.test(text) && !isUniform(Buffer.from(text, 'base64')),
    'must be 32 random bytes in base64, for example from `openssl rand -base64 32`; to replace it, the new one, a comma and the former one',
  ),
  v.mapItems((text) => new Uint8Array(Buffer.from(text, 'base64'))),
)

/** Whether all bytes are the same: such a key is a placeholder. */
export function isUniform(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === bytes[0])
}

export interface KeyEncryption {
  /** The key as the database keeps it: encrypted, if there is a key to do it with. */
  seal(key: PrivateKey): Promise<PrivateKey | SealedKey>
  /** The key that `seal` was given. @throws Error if it was sealed under a key that is not among these, or changed */
  open(kid: string, stored: PrivateKey | SealedKey): Promise<PrivateKey>
}

/** Encrypts private keys with AES-256-GCM. The id of the key is authenticated with it, so that no row passes for another. */
export async function createKeyEncryption(secrets: readonly Uint8Array<ArrayBuffer>[]): Promise<KeyEncryption> {
  const keys = await Promise.all(
    secrets.map((secret) => {
      if (secret.length !== KEY_BYTES) throw new Error(`A key for AES-256 has ${KEY_BYTES} bytes.`)
      return crypto.subtle.importKey('raw', secret, AES, false, ['encrypt', 'decrypt'])
    }),
  )
  const parameters = (kid: string, iv: Uint8Array<ArrayBuffer>) => ({
    name: AES,
    iv,
    additionalData: new TextEncoder().encode(kid),
  })
  const [first] = keys
  return {
    async seal(key) {
      if (!first) return key
      const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES))
      const text = new TextEncoder().encode(JSON.stringify(key))
      const sealed = new Uint8Array(await crypto.subtle.encrypt(parameters(key.kid, iv), first, text))
      return { A256GCM: Buffer.concat([iv, sealed]).toString('base64url') }
    },
    async open(kid, stored) {
      if (!isSealed(stored)) return stored
      const bytes = new Uint8Array(Buffer.from(stored.A256GCM, 'base64url'))
      const [iv, sealed] = [bytes.slice(0, IV_BYTES), bytes.slice(IV_BYTES)]
      for (const key of keys) {
        const text = await crypto.subtle.decrypt(parameters(kid, iv), key, sealed).catch(() => undefined)
        if (text) return JSON.parse(new TextDecoder().decode(text))
      }
      throw new Error(`The signing key ${kid} is encrypted under a key that is not in KEY_ENCRYPTION_KEY.`)
    },
  }
}

export function isSealed(stored: PrivateKey | SealedKey): stored is SealedKey {
  return 'A256GCM' in stored
}
