import { afterEach, beforeEach, expect, test } from 'bun:test'
import { type ChainHead, type Checkpoint, readCheckpoint } from '@posta/common/messages/checkpoint.ts'
import { createTokenVerifier } from '@posta/common/service/tokens.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { sql } from 'drizzle-orm'
import * as v from 'valibot'
import { checkpoints } from '../database/schema.ts'
import { ISSUER, openAccounts } from '../testing/accounts.ts'
import { forgetCheckpoint, signCheckpoints } from './checkpoints.ts'

const TEN_MINUTES_MS = 10 * 60 * 1000
let errors: string[]
const log = { info() {}, warn() {}, error: (_facts: unknown, message?: string) => void errors.push(message ?? '') }
const head = (seq: number, chain = 'posta.events/0'): ChainHead => ({ chain, seq, hash: String(seq % 10).repeat(64) })

let accounts: Awaited<ReturnType<typeof openAccounts>>
let heads: ChainHead[]
let missing: ChainHead[]
let storeIsNew: boolean
let answersNothing: boolean
let taken: string[]
let asked: number
let isHeld: boolean
let looks: number
let component: ReturnType<typeof signCheckpoints>

const Body = v.object({ checkpoint: v.string() })

/** Monitor, as far as gateway sees it: for operators only, it answers `heads` and takes checkpoints. */
async function monitor(url: string | URL | Request, init: RequestInit = {}): Promise<Response> {
  if (answersNothing) {
    asked += 1
    throw new Error('Connection refused.')
  }
  const token = new Headers(init.headers).get('authorization')?.replace('Bearer ', '') ?? ''
  // Monitor asks nobody whether a user exists.
  const verify = createTokenVerifier({ issuer: ISSUER, findKey: accounts.keys.find, deps: accounts.deps })
  expect(await verify(token)).toEqual({ user: 'gateway', role: 'operator' })
  asked += 1
  if (init.method === undefined && url === 'http://monitor.test/audit/heads') return Response.json({ heads })
  expect([init.method, url]).toEqual(['POST', 'http://monitor.test/audit/checkpoints'])
  const { checkpoint } = v.parse(Body, JSON.parse(String(init.body)))
  if (!(await readCheckpoint(checkpoint, accounts.keys.find))) return new Response(null, { status: 422 })
  taken.push(checkpoint)
  return Response.json({ missing, storeIsNew })
}

beforeEach(async () => {
  accounts = await openAccounts()
  heads = [head(7)]
  missing = []
  storeIsNew = false
  errors = []
  answersNothing = false
  taken = []
  asked = 0
  isHeld = true
  looks = 0
  component = open()
})

function open() {
  const { database, writer, keys, deps } = accounts
  return signCheckpoints({
    url: 'http://monitor.test/audit',
    issuer: ISSUER,
    database,
    writer,
    lease: {
      current() {
        looks += 1
        return isHeld ? { epoch: 1, stillHeld: sql`TRUE` } : undefined
      },
    },
    keys,
    deps: { ...deps, fetch: Object.assign(monitor, { preconnect: fetch.preconnect }) satisfies typeof fetch },
    log,
    lookEveryMs: 1,
  })
}

afterEach(async () => {
  await component.close?.(1000)
  await accounts.close()
})

async function read(jwt: string | undefined): Promise<Checkpoint> {
  const checkpoint = await readCheckpoint(jwt ?? '', accounts.keys.find)
  if (!checkpoint) throw new Error('gateway has not signed this')
  return checkpoint
}
const kept = async () => (await accounts.database.select().from(checkpoints))[0]?.jwt

function doesNotThrow(check: () => void): boolean {
  try {
    check()
    return true
  } catch {
    return false
  }
}

/** While time passes, a second at each look. */
const eventuallyLater = (condition: () => boolean | Promise<boolean>) =>
  eventually(() => {
    accounts.pass(1000)
    return condition()
  })

test("the heads of monitor's chains are signed and sent to monitor, and the last checkpoint stays here", async () => {
  heads = []
  await component.start?.()
  await eventually(() => asked > 0)
  heads = [head(7), head(2, 'posta.requests/3')]
  await eventuallyLater(async () => (await kept()) !== undefined)
  expect(taken).toHaveLength(1)
  expect(await kept()).toBe(taken[0] ?? '')
  const { atMs, ...rest } = await read(taken[0])
  expect(rest).toEqual({ issuer: ISSUER, heads, keys: [...(await accounts.keys.publicKeys())] })
  expect(Math.abs(atMs - accounts.deps.now())).toBeLessThan(60_000)
})

test('every ten minutes monitor compares the last one, and another is signed if the chains have grown', async () => {
  await component.start?.()
  await eventually(async () => (await kept()) !== undefined)
  const [first] = taken
  accounts.pass(TEN_MINUTES_MS)
  await eventually(() => asked === 4)
  expect(taken).toEqual([first ?? '', first ?? ''])
  heads = [head(9)]
  accounts.pass(TEN_MINUTES_MS)
  await eventually(() => taken.length === 4)
  expect(taken[2]).toBe(first ?? '')
  expect((await read(taken[3])).heads).toEqual([head(9)])
})

test('a new key signs soon', async () => {
  await component.start?.()
  await eventually(async () => (await kept()) !== undefined)
  const before = await kept()
  await accounts.keys.rotate()
  await eventually(async () => (await kept()) !== before)
  expect((await read(await kept())).heads).toEqual(heads)
})

test('the newest checkpoint has the keys of all before it, also those that no longer sign', async () => {
  await component.start?.()
  await eventually(async () => (await kept()) !== undefined)
  const old = (await accounts.keys.current()).kid
  const before = await kept()
  // All before gateway looks again, as when a key must not be used any more.
  await component.close?.(1000)
  for (let rotation = 0; rotation < 3; rotation++) await accounts.keys.rotate()
  component = open()
  await component.start?.()
  await eventually(async () => (await kept()) !== before)
  expect(await accounts.keys.find(old)).toBeUndefined()
  expect((await read(await kept())).keys.map(({ kid }) => kid)).toContain(old)
  expect((await read(await kept())).keys).toHaveLength(5)
})

test('once the chains no longer have what was signed nothing is signed, until that is forgotten', async () => {
  await component.start?.()
  await eventually(async () => (await kept()) !== undefined)
  component.check()
  missing = [head(7)]
  heads = [head(3)]
  const before = await kept()
  accounts.pass(TEN_MINUTES_MS)
  await eventually(() => taken.length === 2)
  expect(() => component.check()).toThrow(
    /^Monitor's audit chains no longer have what was signed at .*: posta\.events\/0 number 7\. .*checkpoints forget/,
  )
  // The gateway that takes over sees it too.
  await component.close?.(1000)
  component = open()
  await component.start?.()
  await eventually(() => taken.length === 3)
  expect(() => component.check()).toThrow('posta.events/0')
  expect(await kept()).toBe(before ?? '')
  expect(new Set(taken)).toEqual(new Set([before ?? '']))
  expect(errors).toHaveLength(2)

  // Nothing is sent after that but what is signed anew, and no time need pass.
  missing = []
  expect(await forgetCheckpoint(accounts)).toEqual(await read(before))
  await eventually(async () => (await kept()) !== before)
  expect((await read(await kept())).heads).toEqual([head(3)])
  expect(taken.at(-1)).toBe((await kept()) ?? '')
  expect(taken).toHaveLength(4)
  component.check()
})

test('a new store of monitor is called new, and what an operator can do is said', async () => {
  heads = [head(7), head(2, 'posta.requests/3')]
  await component.start?.()
  await eventually(async () => (await kept()) !== undefined)
  const signedAt = new Date((await read(await kept())).atMs).toISOString()
  missing = heads
  storeIsNew = true
  heads = []
  accounts.pass(TEN_MINUTES_MS)
  await eventually(() => taken.length === 2)
  const words = `Monitor's store is new: it has nothing of what was signed at ${signedAt} (9 events). If you replaced the store on purpose, run \`bun run checkpoints forget\`.`
  expect(() => component.check()).toThrow(words)
  expect(errors).toEqual([expect.stringContaining(words)])

  // It works again as soon as that is forgotten, before monitor has an event.
  await forgetCheckpoint(accounts)
  await eventually(() => doesNotThrow(component.check))
})

test('a store that has again what was signed is seen soon', async () => {
  await component.start?.()
  await eventually(async () => (await kept()) !== undefined)
  missing = [head(7)]
  accounts.pass(TEN_MINUTES_MS)
  await eventually(() => !doesNotThrow(component.check))
  missing = []
  accounts.pass(5000)
  await eventually(() => doesNotThrow(component.check))
})

test('a checkpoint is forgotten once, and without one there is nothing to forget', async () => {
  expect(await forgetCheckpoint(accounts)).toBeUndefined()
  await component.start?.()
  await eventually(async () => (await kept()) !== undefined)
  await component.close?.(1000)
  expect((await forgetCheckpoint(accounts))?.heads).toEqual([head(7)])
  expect(await forgetCheckpoint(accounts)).toBeUndefined()
})

test('a monitor that does not answer is asked again, and does not make gateway fail', async () => {
  answersNothing = true
  await component.start?.()
  await eventuallyLater(() => asked > 1)
  component.check()
  answersNothing = false
  await eventuallyLater(async () => (await kept()) !== undefined)
})

test('without the lease monitor is not asked', async () => {
  isHeld = false
  await component.start?.()
  await eventually(() => looks > 3)
  expect(asked).toBe(0)
})
