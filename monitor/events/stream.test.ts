import { afterEach, beforeEach, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import type { ServerSentEvent } from '@posta/common/service/stream.ts'
import { openEmbedded } from '../store/embedded.ts'
import type { Store } from '../store/store.ts'
import { deliver, loggedIn, NOON_MS, requested } from '../testing/messages.ts'
import { createAppend } from './append.ts'
import { toEvent } from './record.ts'
import { createStream, type EventStream, type StreamFilter } from './stream.ts'

const log = createLog('monitor', 'silent')
let folder: string
let store: Store
let stream: EventStream
let append: (...ids: string[]) => Promise<void>
const left: AbortController[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'posta-stream-'))
  store = openEmbedded(join(folder, 'monitor.db'))
  stream = createStream({ events: store.events, deps: systemDeps, log })
  const add = createAppend(store.events)
  append = (...ids) => add(ids.map((id, n) => toEvent(deliver(loggedIn(id), n, ids.length % 6), NOON_MS)))
})

afterEach(async () => {
  for (const each of left.splice(0)) each.abort()
  await store.close()
  rmSync(folder, { recursive: true, force: true })
})

/** A client of the stream that takes what it is asked to take. */
async function follow(filter: StreamFilter = {}, lastEventId?: string, of = stream) {
  const leaving = new AbortController()
  left.push(leaving)
  const events = (await of.follow(filter, lastEventId))(leaving.signal)
  const take = async (count: number): Promise<ServerSentEvent[]> => {
    const taken: ServerSentEvent[] = []
    while (taken.length < count) {
      const { value, done } = await events.next()
      if (done) break
      taken.push(value)
    }
    return taken
  }
  return { take, leave: () => leaving.abort() }
}

const idsOf = (taken: readonly ServerSentEvent[]) =>
  taken.map(({ event, data }) => (event === 'event' ? (data as { id: string }).id : event))

test('what is stored from now on comes at once, and what was there before does not', async () => {
  await append('before')
  const client = await follow()
  expect(idsOf(await client.take(1))).toEqual(['ready'])
  await append('a', 'b')
  stream.wake()
  expect(idsOf(await client.take(2))).toEqual(['a', 'b'])
  await append('c')
  stream.wake()
  const [event] = await client.take(1)
  expect(event).toMatchObject({ event: 'event', data: { id: 'c', type: 'posta.user.logged-in', user: 'ana' } })
})

test('what another replica stored comes too, without a wake', async () => {
  const client = await follow()
  await client.take(1)
  const other = openEmbedded(join(folder, 'monitor.db'))
  await createAppend(other.events)([toEvent(deliver(loggedIn('elsewhere')), NOON_MS)])
  await other.close()
  expect(idsOf(await client.take(1))).toEqual(['elsewhere'])
})

test('each client gets what its filter lets through', async () => {
  const [logins, bobs] = [await follow({ type: 'posta.user.logged-in' }), await follow({ user: 'bob' })]
  const operation = await follow({ operation: 'op-1' })
  await createAppend(store.events)([
    toEvent(deliver(requested('op-1', 'bob')), NOON_MS),
    toEvent(deliver(loggedIn('login', 'ana')), NOON_MS),
  ])
  expect(idsOf(await logins.take(2))).toEqual(['ready', 'login'])
  expect(idsOf(await bobs.take(2))).toEqual(['ready', 'op-1.requested'])
  expect(idsOf(await operation.take(2))).toEqual(['ready', 'op-1.requested'])
})

test('a client that comes back gets what it missed, each event once and in the order of its chain', async () => {
  const client = await follow()
  const [ready] = await client.take(1)
  await append('a', 'b', 'c')
  const [a] = await client.take(1)
  client.leave()
  await append('d')
  const sinceA = await follow({}, a?.id)
  await append('e', 'f')
  expect(idsOf(await sinceA.take(6)).toSorted()).toEqual(['b', 'c', 'd', 'e', 'f', 'ready'])
  const sinceReady = await follow({}, ready?.id)
  expect(
    idsOf(await sinceReady.take(7))
      .slice(1)
      .toSorted(),
  ).toEqual(['a', 'b', 'c', 'd', 'e', 'f'])
})

test('a restart of monitor, or another replica, goes on from the same id', async () => {
  const client = await follow()
  await append('a', 'b')
  const [, a] = await client.take(2)
  const restarted = createStream({ events: store.events, deps: systemDeps, log })
  expect(idsOf(await (await follow({}, a?.id, restarted)).take(2))).toEqual(['ready', 'b'])
})

test('a client that was away for too long is told how much it missed', async () => {
  const client = await follow()
  const [ready] = await client.take(1)
  client.leave()
  await client.take(2)
  const many = Array.from({ length: 10_002 }, (_, n) => `e-${n}`)
  await append(...many)
  const back = await follow({}, ready?.id)
  expect(await back.take(1)).toMatchObject([{ event: 'skipped', data: { events: 10_002 } }])
})

test('a client that does not read is cut off, with an event that says so, and the others go on', async () => {
  const [slow, quick] = [await follow(), await follow()]
  await slow.take(1)
  await quick.take(1)
  const seen: string[] = []
  for (let round = 0; round < 3; round++) {
    await append(...Array.from({ length: 400 }, (_, n) => `e-${round}-${n}`))
    stream.wake()
    seen.push(...idsOf(await quick.take(400)))
  }
  expect(seen).toHaveLength(1200)
  const rest = await slow.take(5000)
  expect(idsOf(rest)).toEqual(['overrun'])
})

test('an id that the stream did not give is refused', async () => {
  for (const id of ['', 'x', '1.2.3', `${'1.'.repeat(17)}x`, `${'1.'.repeat(17)}${'9'.repeat(40)}`])
    await expect(stream.follow({}, id)).rejects.toMatchObject({ code: 'malformed-request' })
  const future = Array(18).fill(999).join('.')
  const client = await follow({}, future)
  await append('a')
  expect(idsOf(await client.take(2))).toEqual(['ready', 'a'])
})

test('beyond a hundred clients the next is refused, until one leaves', async () => {
  const clients = await Promise.all(Array.from({ length: 100 }, () => follow()))
  await expect(follow()).rejects.toMatchObject({ code: 'overloaded', retryAfterS: 5 })
  const first = clients[0]
  await first?.take(1)
  first?.leave()
  expect(idsOf((await first?.take(1)) ?? [])).toEqual(['end'])
  await first?.take(1)
  expect(idsOf(await (await follow()).take(1))).toEqual(['ready'])
})

test('the store is read only while someone follows, and trouble with it passes', async () => {
  let reads = 0
  let trouble = false
  const counting = createStream({
    events: {
      tail: store.events.tail,
      after: async (...asked) => {
        reads++
        if (trouble) throw new Error('down')
        return store.events.after(...asked)
      },
    },
    deps: systemDeps,
    log,
  })
  const client = await follow({}, undefined, counting)
  await client.take(1)
  trouble = true
  await append('a')
  const before = reads
  counting.wake()
  while (reads === before) await Bun.sleep(1)
  trouble = false
  counting.wake()
  expect(idsOf(await client.take(1))).toEqual(['a'])
  client.leave()
  await client.take(2)
  const atEnd = reads
  counting.wake()
  await append('b')
  counting.wake()
  expect(reads).toBe(atEnd)
})
