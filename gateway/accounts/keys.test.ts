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
import { PrivateKeySet } from './key-set.ts'
import { fixedKeys, openKeys } from './keys.ts'

const DAY_MS = 24 * 60 * 60 * 1000
const kids = (keys: readonly { kid: string }[]) => keys.map(({ kid }) => kid).sort()

/** Gateways on one database, with one clock. */
async function start(gateways: number) {
  const first = await openTemporary()
  const others = await Promise.all(Array.from({ length: gateways - 1 }, () => openDatabase({ url: first.url })))
  let passedMs = 0
  const startedMs = Date.now()
  const deps = { newId: systemDeps.newId, now: () => startedMs + passedMs, monotonicMs: () => passedMs }
  const addEvent = eventAdder(deps)
  return {
    keys: await Promise.all([first, ...others].map((opened) => openKeys({ ...opened, addEvent, deps }))),
    deps,
    pass(ms: number) {
      passedMs += ms
    },
    rotations: async () => (await first.database.select().from(outbox)).map(({ event }) => event?.data),
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

test('another gateway signs with the new key within 30 s, and finds an unknown key within 1 s', async () => {
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
  pass(30_000)
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
  await expect(keys.rotate()).rejects.toThrow('TOKEN_KEYS')
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

function pair(kid: string) {
  const { x = '', d = '' } = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' })
  return { kty: 'OKP', crv: 'Ed25519', x, d, kid }
}
