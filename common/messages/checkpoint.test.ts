import { expect, test } from 'bun:test'
import { generateKeyPairSync } from 'node:crypto'
import * as v from 'valibot'
import { createTokenVerifier, PublicKey, signAccessToken } from '../service/tokens.ts'
import { type Checkpoint, keySet, ownKeys, readCheckpoint, signCheckpoint } from './checkpoint.ts'

const ISSUER = 'http://gateway.test'

function createKey(kid: string) {
  const jwk = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  const whole = { ...jwk, kid, alg: 'EdDSA', use: 'sig' }
  return { ...v.parse(PublicKey, whole), d: v.parse(v.string(), jwk.d) }
}
const publicPart = (key: object) => v.parse(PublicKey, key)

const key = createKey('a')
const checkpoint: Checkpoint = {
  issuer: ISSUER,
  atMs: Date.UTC(2026, 10, 23, 12),
  heads: [{ chain: 'posta.events/0', seq: 7, hash: 'a'.repeat(64) }],
  keys: [publicPart(key)],
}
const signed = signCheckpoint(checkpoint, key)

test('a checkpoint says what was signed, to whoever has the key', async () => {
  expect(await readCheckpoint(signed, keySet([publicPart(key)]))).toEqual(checkpoint)
  expect(await readCheckpoint(signed, keySet(ownKeys(signed)))).toEqual(checkpoint)
  expect(JSON.stringify(ownKeys(signed))).not.toContain(key.d)
})

test('nothing that was changed, cut, or signed by another passes for one', async () => {
  const [header = '', payload = '', signature = ''] = signed.split('.')
  const changed = Buffer.from(Buffer.from(payload, 'base64url').toString().replace('"seq":7', '"seq":6'))
  const other = createKey('a')
  const forged = [
    `${header}.${changed.toString('base64url')}.${signature}`,
    `${header}.${payload}.`,
    `${header}.${payload}`,
    signCheckpoint(checkpoint, other),
    signCheckpoint(checkpoint, createKey('b')),
    'x',
    '',
  ]
  for (const jwt of forged) expect(await readCheckpoint(jwt, keySet([publicPart(key)])), jwt).toBeUndefined()
})

test('no access token passes for a checkpoint, and no checkpoint for an access token', async () => {
  const claims = { iss: ISSUER, aud: 'posta', sub: 'olga', role: 'operator' as const, jti: 'x' }
  const iat = Math.floor(Date.now() / 1000)
  const token = signAccessToken(Object.assign(claims, { iat, exp: iat + 60, heads: [], keys: [] }), key)
  const findKey = keySet([publicPart(key)])
  expect(await readCheckpoint(token, findKey)).toBeUndefined()
  const verify = createTokenVerifier({ issuer: ISSUER, findKey, deps: { now: Date.now } })
  expect(await verify(token)).toEqual({ user: 'olga', role: 'operator' })
  await expect(verify(signed)).rejects.toMatchObject({ code: 'invalid-token' })
})
