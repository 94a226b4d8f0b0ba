import { afterEach, beforeEach, expect, test } from 'bun:test'
import { type ChainHead, type Checkpoint, readCheckpoint } from '@posta/common/messages/checkpoint.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { sql } from 'drizzle-orm'
import * as v from 'valibot'
import { checkpoints } from '../database/schema.ts'
import { ISSUER, openAccounts } from '../testing/accounts.ts'
import { signCheckpoints } from './checkpoints.ts'

const TEN_MINUTES_MS = 10 * 60 * 1000
const log = { info() {}, warn() {}, error() {} }
const place = (seq: number, chain = 'posta.events/0'): ChainHead => ({ chain, seq, hash: String(seq % 10).repeat(64) })

let accounts: Awaited<ReturnType<typeof openAccounts>>
let heads: ChainHead[]
let missing: ChainHead[]
let answersNothing: boolean
let taken: string[]
let asked: number
let isHeld: boolean
let looks: number
let part: ReturnType<typeof signCheckpoints>

const Body = v.object({ checkpoint: v.string() })

/** Monitor, as far as gateway sees it: to operators alone it tells `heads`, and takes checkpoints. */
async function monitor(url: string | URL | Request, init: RequestInit = {}): Promise<Response> {
  if (answersNothing) {
    asked += 1
    throw new Error('Connection refused.')
  }
  const token = new Headers(init.headers).get('authorization')?.replace('Bearer ', '') ?? ''
  expect(await accounts.verify(token)).toEqual({ user: 'gateway', role: 'operator' })
  asked += 1
  if (init.method === 'GET' && url === 'http://monitor.test/audit/heads') return Response.json({ heads })
  expect([init.method, url]).toEqual(['POST', 'http://monitor.test/audit/checkpoints'])
  const { checkpoint } = v.parse(Body, JSON.parse(String(init.body)))
  if (!(await readCheckpoint(checkpoint, accounts.keys.find))) return new Response(null, { status: 422 })
  taken.push(checkpoint)
  return Response.json({ missing })
}

beforeEach(async () => {
  accounts = await openAccounts()
  heads = [place(7)]
  missing = []
  answersNothing = false
  taken = []
  asked = 0
  isHeld = true
  looks = 0
  part = open()
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
  await part.close?.(1000)
  await accounts.close()
})

async function read(jwt: string | undefined): Promise<Checkpoint> {
  const checkpoint = await readCheckpoint(jwt ?? '', accounts.keys.find)
  if (!checkpoint) throw new Error('gateway has not signed this')
  return checkpoint
}
const kept = async () => (await accounts.database.select().from(checkpoints))[0]?.jwt

/** While time passes, a second at each look. */
const eventuallyLater = (condition: () => boolean | Promise<boolean>) =>
  eventually(() => {
    accounts.pass(1000)
    return condition()
  })

test('what monitor tells of its chains is signed and handed back, and the last one stays here', async () => {
  heads = []
  await part.start?.()
  await eventually(() => asked > 0)
  heads = [place(7), place(2, 'posta.requests/3')]
  await eventuallyLater(async () => (await kept()) !== undefined)
  expect(taken).toHaveLength(1)
  expect(await kept()).toBe(taken[0] ?? '')
  const { atMs, ...rest } = await read(taken[0])
  expect(rest).toEqual({ issuer: ISSUER, heads, keys: [...(await accounts.keys.publicKeys())] })
  expect(Math.abs(atMs - accounts.deps.now())).toBeLessThan(60_000)
})

test('every ten minutes the last one is shown to monitor, and another is signed if the chains have grown', async () => {
  await part.start?.()
  await eventually(async () => (await kept()) !== undefined)
  const [first] = taken
  accounts.pass(TEN_MINUTES_MS)
  await eventually(() => asked === 4)
  expect(taken).toEqual([first ?? '', first ?? ''])
  heads = [place(9)]
  accounts.pass(TEN_MINUTES_MS)
  await eventually(() => taken.length === 4)
  expect(taken[2]).toBe(first ?? '')
  expect((await read(taken[3])).heads).toEqual([place(9)])
})

test('a new key signs soon', async () => {
  await part.start?.()
  await eventually(async () => (await kept()) !== undefined)
  const before = await kept()
  await accounts.keys.rotate()
  await eventually(async () => (await kept()) !== before)
  expect((await read(await kept())).heads).toEqual(heads)
})

test('the newest one has the keys of all before it, also of those that sign nothing any more', async () => {
  await part.start?.()
  await eventually(async () => (await kept()) !== undefined)
  const old = (await accounts.keys.current()).kid
  const before = await kept()
  // All before gateway looks again, as when a key must not be used any more.
  await part.close?.(1000)
  for (let rotation = 0; rotation < 3; rotation++) await accounts.keys.rotate()
  part = open()
  await part.start?.()
  await eventually(async () => (await kept()) !== before)
  expect(await accounts.keys.find(old)).toBeUndefined()
  expect((await read(await kept())).keys.map(({ kid }) => kid)).toContain(old)
  expect((await read(await kept())).keys).toHaveLength(5)
})

test('once the chains no longer hold what was signed nothing is signed any more, until that is forgotten', async () => {
  await part.start?.()
  await eventually(async () => (await kept()) !== undefined)
  part.check()
  missing = [place(7)]
  heads = [place(3)]
  const before = await kept()
  accounts.pass(TEN_MINUTES_MS)
  await eventually(() => taken.length === 2)
  expect(() => part.check()).toThrow('posta.events/0')
  // Whoever takes over sees it too.
  await part.close?.(1000)
  part = open()
  await part.start?.()
  await eventually(() => taken.length === 3)
  expect(() => part.check()).toThrow('posta.events/0')
  expect(await kept()).toBe(before ?? '')
  expect(new Set(taken)).toEqual(new Set([before ?? '']))

  // After that nothing is shown but what is signed anew.
  await accounts.writer.write([accounts.database.update(checkpoints).set({ forgotten: true })])
  missing = []
  accounts.pass(TEN_MINUTES_MS)
  await eventually(async () => (await kept()) !== before)
  expect((await read(await kept())).heads).toEqual([place(3)])
  expect(taken.at(-1)).toBe((await kept()) ?? '')
  expect(taken).toHaveLength(4)
  part.check()
})

test('a monitor that does not answer is asked again, and is no trouble of gateway', async () => {
  answersNothing = true
  await part.start?.()
  await eventuallyLater(() => asked > 1)
  part.check()
  answersNothing = false
  await eventuallyLater(async () => (await kept()) !== undefined)
})

test('without the lease nobody is asked', async () => {
  isHeld = false
  await part.start?.()
  await eventually(() => looks > 3)
  expect(asked).toBe(0)
})
