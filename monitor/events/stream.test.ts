import { afterEach, beforeEach, expect, spyOn, test } from 'bun:test'
import { join } from 'node:path'
import { createLog } from '@posta/common/service/log.ts'
import type { ServerSentEvent } from '@posta/common/service/stream.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import * as v from 'valibot'
import { openEmbedded } from '../store/embedded.ts'
import type { Store } from '../store/store.ts'
import { deliver, loggedIn, NOON_MS, requested } from '../testing/messages.ts'
import { createAppend } from './append.ts'
import { toEvent } from './record.ts'
import { createStream, type EventStream, type StreamFilter } from './stream.ts'

const log = createLog('monitor', 'silent')
let folder: ReturnType<typeof temporaryFolder>
let store: Store
let stream: EventStream
let append: (...ids: string[]) => Promise<void>
/** What the stream has read. A test may say how long a read seems to take, that reads fail, and what happens meanwhile. */
let read: { times: number; events: number; tookMs: number; failure?: Error | undefined; meanwhile: () => Promise<void> }
const left: AbortController[] = []

beforeEach(() => {
  folder = temporaryFolder()
  store = openEmbedded(join(folder.path, 'monitor.db'))
  read = { times: 0, events: 0, tookMs: 0, meanwhile: async () => {} }
  stream = openStream()
  const add = createAppend(store.events)
  append = (...ids) => add(ids.map((id, n) => toEvent(deliver(loggedIn(id), n, ids.length % 6), NOON_MS)))
})

afterEach(async () => {
  for (const each of left.splice(0)) each.abort()
  await store.close()
  folder.remove()
})

/** As each replica has one. */
function openStream(): EventStream {
  let nowMs = 0
  return createStream({
    events: {
      async tail(chain) {
        if (read.failure) throw read.failure
        return store.events.tail(chain)
      },
      async after(seqs, limit) {
        read.times++
        nowMs += read.tookMs
        if (read.failure) throw read.failure
        const found = await store.events.after(seqs, limit)
        read.events += found.length
        await read.meanwhile()
        return found
      },
    },
    deps: { monotonicMs: () => nowMs },
    log,
  })
}

let followers = 0

/** A client of the stream that takes what it is asked to take: each time of another operator, unless `by` says who. */
async function follow(filter: StreamFilter = {}, lastEventId?: string, of = stream, by = `o${followers++}`) {
  const leaving = new AbortController()
  left.push(leaving)
  const events = (await of.follow(by, filter, lastEventId))(leaving.signal)
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

const InChain = v.object({ chain: v.object({ name: v.string(), seq: v.number() }) })
const idsOf = (taken: readonly ServerSentEvent[]) =>
  taken.map(({ event, data }) => (event === 'event' ? (data as { id: string }).id : event))

test('a client gets the events that are stored from now on, at once, and none that were stored before', async () => {
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

test('a client that waits gets what another replica stored, without a wake', async () => {
  const client = await follow()
  const taken = client.take(2)
  await eventually(() => read.times > 0)
  await append('elsewhere')
  expect(idsOf(await taken)).toEqual(['ready', 'elsewhere'])
})

test('an event that is stored while the store is read comes at once, and not with the next poll', async () => {
  read.tookMs = 3_600_000
  const client = await follow()
  await client.take(1)
  read.meanwhile = async () => {
    read.meanwhile = async () => {}
    await append('a')
    stream.wake()
  }
  expect(idsOf(await client.take(1))).toEqual(['a'])
})

test('a client that leaves gets no more events, whether it waits or not', async () => {
  read.tookMs = 3_600_000
  const [client, waiting] = [await follow(), await follow()]
  await append('a', 'b', 'c')
  expect(idsOf(await client.take(2))).toEqual(['ready', 'a'])
  client.leave()
  expect(idsOf(await client.take(2))).toEqual(['end'])
  expect(idsOf(await waiting.take(4))).toEqual(['ready', 'a', 'b', 'c'])
  const taken = waiting.take(2)
  await eventually(() => read.times >= 3)
  waiting.leave()
  expect(idsOf(await taken)).toEqual(['end'])
})

test('a stream ends after 15 minutes, when an access token has expired too', async () => {
  const expired = new AbortController()
  const timeout = spyOn(AbortSignal, 'timeout').mockReturnValue(expired.signal)
  const client = await follow()
  await client.take(1)
  const taken = client.take(2)
  expired.abort()
  const reason = 'Connect again, with a fresh access token and Last-Event-ID.'
  expect(await taken).toEqual([{ event: 'end', data: { reason } }])
  expect(timeout.mock.calls).toEqual([[15 * 60_000]])
  timeout.mockRestore()
})

test('each client gets only the events that fit its filter', async () => {
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

test('another replica, or monitor after a restart, continues from the same id', async () => {
  const client = await follow()
  await append('a', 'b')
  const [, a] = await client.take(2)
  const restarted = openStream()
  expect(idsOf(await (await follow({}, a?.id, restarted)).take(2))).toEqual(['ready', 'b'])
})

test('a client that was away for too long is told how many events it missed', async () => {
  const client = await follow()
  const [ready] = await client.take(1)
  client.leave()
  await client.take(2)
  const many = Array.from({ length: 10_002 }, (_, n) => `e-${n}`)
  await append(...many)
  const back = await follow({}, ready?.id)
  expect(await back.take(1)).toMatchObject([{ event: 'skipped', data: { events: 10_002 } }])
  await append('new')
  expect(idsOf(await back.take(1))).toEqual(['new'])
})

test('a client that reads slowly gets every event once and in order, and at most one page is held for it', async () => {
  const slow = await follow()
  await slow.take(1)
  const add = createAppend(store.events)
  const taken: ServerSentEvent[] = []
  for (let round = 0; round < 3; round++) {
    await add(Array.from({ length: 400 }, (_, n) => toEvent(deliver(loggedIn(`e-${round}-${n}`), n, n % 6), NOON_MS)))
    stream.wake()
    for (let n = 0; n < 400; n++) {
      taken.push(...(await slow.take(1)))
      expect(read.events - taken.length).toBeLessThan(100)
    }
  }
  expect(new Set(idsOf(taken)).size).toBe(1200)
  const chains = taken.map(({ data }) => v.parse(InChain, data).chain)
  for (const [, ofChain] of Map.groupBy(chains, ({ name }) => name))
    expect(ofChain.map(({ seq }) => seq)).toEqual(ofChain.map((_, index) => index + 1))
})

test('nothing is read for a client that takes nothing, and the others go on', async () => {
  const [stalled, quick] = [await follow(), await follow()]
  await stalled.take(1)
  await quick.take(1)
  for (let round = 0; round < 3; round++) {
    const ids = Array.from({ length: 300 }, (_, n) => `e-${round}-${n}`)
    await append(...ids)
    stream.wake()
    expect(idsOf(await quick.take(300))).toEqual(ids)
  }
  expect(read.events).toBe(900)
  expect(idsOf(await stalled.take(900))).toHaveLength(900)
})

test('a page of large events is cut short, and every event arrives in order', async () => {
  const client = await follow()
  await client.take(1)
  const ids = Array.from({ length: 25 }, (_, n) => `e-${n}`)
  const large = Buffer.from('x'.repeat(200_000))
  await createAppend(store.events)(
    ids.map((id) => {
      const message = deliver(loggedIn(id))
      return toEvent({ ...message, headers: [...message.headers, ['large', large]] }, NOON_MS)
    }),
  )
  expect(idsOf(await client.take(25))).toEqual(ids)
  // Four at a time fit.
  expect(read.times).toBeGreaterThanOrEqual(7)
})

test('a hundred clients that wait at the end cost the store as much as one', async () => {
  const clients = await Promise.all(Array.from({ length: 100 }, () => follow()))
  for (const client of clients) await client.take(1)
  const taking = clients.map((client) => client.take(2))
  await append('a')
  stream.wake()
  await append('b')
  stream.wake()
  for (const taken of await Promise.all(taking)) expect(idsOf(taken)).toEqual(['a', 'b'])
  expect(read.times).toBeLessThan(50)
  expect(read.events).toBeLessThan(50)
})

test('an id that the stream did not give is refused', async () => {
  for (const id of ['', 'x', '1.2.3', `${'1.'.repeat(17)}x`, `${'1.'.repeat(17)}${'9'.repeat(40)}`])
    await expect(stream.follow('olga', {}, id)).rejects.toMatchObject({
      code: 'malformed-request',
      message: '`Last-Event-ID` is not an id that this stream gave.',
    })
  const future = Array(18).fill(999).join('.')
  const client = await follow({}, future)
  await append('a')
  expect(idsOf(await client.take(2))).toEqual(['ready', 'a'])
})

test('a client beyond the hundredth is refused until another leaves', async () => {
  const clients = await Promise.all(Array.from({ length: 100 }, () => follow()))
  await expect(follow()).rejects.toMatchObject({ code: 'overloaded', retryAfterS: 5 })
  const first = clients[0]
  await first?.take(1)
  first?.leave()
  expect(idsOf((await first?.take(1)) ?? [])).toEqual(['end'])
  await first?.take(1)
  expect(idsOf(await (await follow()).take(1))).toEqual(['ready'])
})

test('one operator takes 20 of the 100 places, and the other 80 are there for the rest', async () => {
  const greedy = () => follow({}, undefined, stream, 'greedy')
  const own = await Promise.all(Array.from({ length: 20 }, greedy))
  for (let n = 0; n < 100; n += 1)
    await expect(greedy()).rejects.toMatchObject({ code: 'too-many-requests', retryAfterS: 5 })
  for (let n = 0; n < 80; n += 1) await follow()
  await expect(follow()).rejects.toMatchObject({ code: 'overloaded' })
  const first = own[0]
  await first?.take(1)
  first?.leave()
  await first?.take(2)
  expect(idsOf(await (await greedy()).take(1))).toEqual(['ready'])
})

test('the store is read only while a client follows, and again after a failure', async () => {
  const client = await follow()
  await client.take(1)
  read.failure = new Error('down')
  const taken = client.take(1)
  while (read.times < 2) {
    await Bun.sleep(1)
    stream.wake()
  }
  await append('a')
  read.failure = undefined
  stream.wake()
  expect(idsOf(await taken)).toEqual(['a'])
  const end = client.take(2)
  client.leave()
  expect(idsOf(await end)).toEqual(['end'])
  const { times } = read
  await append('b')
  stream.wake()
  await Bun.sleep(300)
  expect(read.times).toBe(times)
})

test("a client is refused while the store is down, and takes no other client's place", async () => {
  read.failure = new Error('down')
  for (let n = 0; n < 150; n++) await expect(follow()).rejects.toThrow('down')
  read.failure = undefined
  expect(idsOf(await (await follow()).take(1))).toEqual(['ready'])
})
