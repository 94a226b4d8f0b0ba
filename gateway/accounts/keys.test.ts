import { expect, test } from 'bun:test'
import { generateKeyPairSync } from 'node:crypto'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createTokenVerifier } from '@posta/common/service/tokens.ts'
import * as v from 'valibot'
import { eventAdder } from '../database/events.ts'
import { openDatabase } from '../database/open.ts'
import { outbox, signingKeys } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { createGrant } from './access-tokens.ts'
import { createKeyEncryption } from './key-encryption.ts'
import { PrivateKeySet } from './key-set.ts'
import { fixedKeys, openKeys } from './keys.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const kids = (keys: readonly { kid: string }[]) => keys.map(({ kid }) => kid).sort()

/** Gateways on one database, with one clock. */
async function start(gateways: number, encryptionKeys: readonly Uint8Array<ArrayBuffer>[] = []) {
  const first = await openTemporary()
  const others = await Promise.all(Array.from({ length: gateways - 1 }, () => openDatabase({ url: first.url })))
  let passedMs = 0
  const startedMs = Date.now()
  const deps = { newId: systemDeps.newId, now: () => startedMs + passedMs, monotonicMs: () => passedMs }
  const addEvent = eventAdder(deps)
  return {
    keys: await Promise.all(
      [first, ...others].map((opened) => openKeys({ ...opened, addEvent, encryptionKeys, deps })),
    ),
    deps,
    /** Another gateway, with keys of its own to encrypt with. */
    join: (own: readonly Uint8Array<ArrayBuffer>[]) => openKeys({ ...first, addEvent, encryptionKeys: own, deps }),
    pass(ms: number) {
      passedMs += ms
    },
    rotations: async () => (await first.database.select().from(outbox)).map(({ event }) => event?.data),
    events: async () => (await first.database.select().from(outbox)).map(({ event }) => [event?.type, event?.data]),
    rows: () => first.database.select().from(signingKeys),
    async close() {
      for (const each of others) await each.close()
      await first.close()
    },
  }
}

test('gateways that start together on a new database sign with the same key, and publish the next one', async () => {
  const { keys, rows, close } = await start(4)
  const current = await Promise.all(keys.map((each) => each.current()))
  expect(new Set(kids(current)).size).toBe(1)
  for (const each of keys) expect(await each.publicKeys()).toHaveLength(2)
  expect((await rows()).map(({ status }) => status).sort()).toEqual(['current', 'next'])
  await close()
})

test('published keys have no private part', async () => {
  const { keys, close } = await start(1)
  const [first] = keys
  for (const key of (await first?.publicKeys()) ?? [])
    expect(Object.keys(key).sort()).toEqual(['alg', 'crv', 'kid', 'kty', 'use', 'x'])
  await close()
})

test('a rotation signs with a key that was published before, and tokens signed before the rotation stay valid', async () => {
  const { keys, deps, rotations, close } = await start(1)
  const [first] = keys
  if (!first) throw new Error('There are no keys.')
  const grant = createGrant({ issuer: 'http://gateway.test', keys: first, deps })
  const { accessToken } = await grant({ id: 'ana', role: 'user' }, 's1', 'not used here')
  const before = await first.publicKeys()
  const kid = await first.rotate()
  expect(kids(before)).toContain(kid)
  expect((await first.current()).kid).toBe(kid)
  expect(kids(await first.publicKeys())).toEqual(expect.arrayContaining(kids(before)))
  expect(await first.publicKeys()).toHaveLength(3)
  expect(await rotations()).toEqual([{ kid }])
  const verify = createTokenVerifier({ issuer: 'http://gateway.test', findKey: first.find, deps })
  expect(await verify(accessToken)).toEqual({ user: 'ana', role: 'user', session: 's1' })
  await close()
})

test('gateways that rotate at the same time rotate once', async () => {
  const { keys, rotations, close } = await start(3)
  const rotated = await Promise.all(keys.map((each) => each.rotate()))
  expect(new Set(rotated).size).toBe(1)
  expect(await rotations()).toHaveLength(1)
  for (const each of keys) expect(await each.publicKeys()).toHaveLength(3)
  await close()
})

test('a key is replaced after it has signed for 30 days, and not before', async () => {
  const { keys, pass, rotations, close } = await start(2)
  const due = () => Promise.all(keys.map((each) => each.rotateIfDue()))
  pass(30 * DAY_MS - 1)
  await due()
  expect(await rotations()).toEqual([])
  pass(1)
  await due()
  expect(await rotations()).toHaveLength(1)
  await due()
  expect(await rotations()).toHaveLength(1)
  await close()
})

test('another gateway signs with the new key within 10 s, and finds an unknown key within 1 s', async () => {
  const { keys, pass, close } = await start(2)
  const [first, second] = keys
  await second?.current()
  const kid = await first?.rotate()
  const newest = kids((await first?.publicKeys()) ?? []).at(-1) ?? ''
  expect(await second?.find(newest)).toBeUndefined()
  pass(1000)
  expect((await second?.find(newest))?.kid).toBe(newest)
  const later = await first?.rotate()
  expect((await second?.current())?.kid).toBe(kid ?? '')
  pass(10_000)
  expect((await second?.current())?.kid).toBe(later ?? '')
  await close()
})

test('of the keys of the configuration the first one signs and all are published', async () => {
  const [first, second] = [pair('first'), pair('second')]
  const keys = fixedKeys(v.parse(PrivateKeySet, { keys: [first, second] }))
  expect((await keys.current()).kid).toBe('first')
  expect(kids(await keys.publicKeys())).toEqual(['first', 'second'])
  expect(JSON.stringify(await keys.publicKeys())).not.toContain('"d"')
  expect((await keys.find('second'))?.kid).toBe('second')
})

test('an unusable key set of the configuration is refused by a message that shows nothing of it', () => {
  const good = pair('good')
  const bad = [
    {},
    { keys: [] },
    { keys: [{ ...good, kid: '' }] },
    { keys: [{ ...good, crv: 'P-256' }] },
    { keys: [{ ...good, d: undefined }] },
    { keys: [good, { ...good, x: pair('other').x }] },
  ]
  for (const set of bad) {
    const checked = v.safeParse(PrivateKeySet, set)
    expect(checked.success).toBe(false)
    expect(checked.issues?.[0].message).toStartWith('must be a JWK set')
    expect(checked.issues?.map(({ message }) => message).join()).not.toContain(good.d)
  }
})

test('a revoked key verifies nothing any more at any gateway within 10 s, and another one signs', async () => {
  const { keys, deps, pass, events, close } = await start(2)
  const [first, second] = keys
  if (!first || !second) throw new Error('There are no keys.')
  const stolen = (await first.current()).kid
  const grant = createGrant({ issuer: 'http://gateway.test', keys: second, deps })
  const verify = createTokenVerifier({ issuer: 'http://gateway.test', findKey: second.find, deps })
  const { accessToken } = await grant({ id: 'ana', role: 'user' }, 'session', 'not used here')
  await verify(accessToken)
  const [, next] = (await first.list()).toSorted((a, b) => a.status.localeCompare(b.status))
  expect(await first.revoke(stolen)).toBe(next?.kid)
  expect((await first.list()).map(({ status }) => status).sort()).toEqual(['current', 'next'])
  expect(await events()).toEqual([['posta.key.revoked', { kid: stolen }]])
  pass(10_000)
  await expect(verify(accessToken)).rejects.toMatchObject({ code: 'invalid-token' })
  expect((await second.current()).kid).toBe(next?.kid ?? '')
  await verify((await grant({ id: 'ana', role: 'user' }, 'session', 'not used here')).accessToken)
  await close()
})

test('each key can be revoked, all of them too, and by gateways at the same time: there are always two more', async () => {
  const { keys, rows, events, close } = await start(3)
  const [first] = keys
  await first?.rotate()
  const before = await rows()
  expect(before).toHaveLength(3)
  for (const { kid } of before) await Promise.all(keys.map((each) => each.revoke(kid)))
  const after = await rows()
  expect(after.map(({ status }) => status).sort()).toEqual(['current', 'next'])
  expect(after.filter(({ kid }) => before.some((one) => one.kid === kid))).toEqual([])
  expect((await events()).filter(([type]) => type === 'posta.key.revoked')).toHaveLength(3)
  expect(await first?.revoke('no such key')).toBeUndefined()
  expect(await rows()).toEqual(after)
  await close()
})

const secret = () => crypto.getRandomValues(new Uint8Array(32))

test('a copy of the database has no key that signs: the private keys are in it under AES-256-GCM alone', async () => {
  const [old, fresh] = [secret(), secret()]
  const { keys, rows, join, close } = await start(1, [old])
  const [first] = keys
  if (!first) throw new Error('There are no keys.')
  await first.rotate()
  const key = await first.current()
  expect(JSON.stringify(await rows())).not.toContain(key.d)
  expect((await rows()).map(({ privateJwk }) => Object.keys(privateJwk))).toEqual(Array(3).fill(['A256GCM']))
  const isConfigError = { name: 'ConfigError', message: expect.stringContaining('KEY_ENCRYPTION_KEY') }
  await expect(join([])).rejects.toMatchObject(isConfigError)
  await expect(join([fresh])).rejects.toMatchObject(isConfigError)
  // One is replaced by the other while gateways run.
  const between = await join([fresh, old])
  expect(await between.current()).toEqual(key)
  expect(await between.encrypt()).toBe(0)
  expect(await (await join([fresh])).current()).toEqual(key)
  await expect(join([old])).rejects.toMatchObject(isConfigError)
  await close()
})

test('keys that are there in plain text go on, and are encrypted by one call', async () => {
  const { keys, rows, join, close } = await start(1)
  const [plain] = keys
  if (!plain) throw new Error('There are no keys.')
  const later = await join([secret()])
  const key = await plain.current()
  expect(await later.current()).toEqual(key)
  expect((await later.list()).map(({ isEncrypted }) => isEncrypted)).toEqual([false, false])
  expect(await later.encrypt()).toBe(2)
  expect(JSON.stringify(await rows())).not.toContain(key.d)
  expect(await later.current()).toEqual(key)
  expect((await later.list()).map(({ isEncrypted }) => isEncrypted)).toEqual([true, true])
  await close()
})

test('an encrypted key passes for no other row', async () => {
  const own = secret()
  const { rows, close } = await start(1, [own])
  const encryption = await createKeyEncryption([own])
  const [first, second] = await rows()
  if (!first || !second) throw new Error('There are no keys.')
  expect(await encryption.open(first.kid, first.privateJwk)).toMatchObject(first.publicJwk)
  await expect(encryption.open(first.kid, second.privateJwk)).rejects.toThrow('KEY_ENCRYPTION_KEY')
  await close()
})

test('keys of the configuration that anyone can have, or two under one id, are refused with the reason', () => {
  const faultOf = (...keys: object[]) => v.safeParse(PrivateKeySet, { keys }).issues?.[0].message
  const known = (d: string, x: string) => ({ kty: 'OKP', crv: 'Ed25519', kid: 'known', d, x })
  const zero = known('A'.repeat(43), 'O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik')
  const published = known('nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A', '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo')
  for (const key of [zero, published]) {
    expect(faultOf(key)).toStartWith('must not have a key that everyone knows')
    expect(faultOf(pair('good'), key)).toStartWith('must not have a key that everyone knows')
  }
  expect(faultOf(pair('one'), pair('one'))).toBe('must not have two keys of one kid')
  expect(faultOf(pair('one'), pair('two'))).toBeUndefined()
})

function pair(kid: string) {
  const { x = '', d = '' } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  return { kty: 'OKP', crv: 'Ed25519', x, d, kid }
}
