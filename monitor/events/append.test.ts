import { expect, test } from 'bun:test'
import { verify } from '../audit/chain.ts'
import { deliver, loggedIn, NOON_MS } from '../testing/messages.ts'
import { createAppend } from './append.ts'
import type { Events, NewEvent, StoredEvent } from './events.ts'
import { toEvent } from './record.ts'

const event = (id: string, partition = 0): NewEvent => toEvent(deliver(loggedIn(id), 0, partition), NOON_MS)

/** A store in memory that takes events one by one, as a document store does. */
function memory() {
  const stored: StoredEvent[] = []
  const calls: string[] = []
  const failures: Error[] = []
  const events: Pick<Events, 'insert' | 'existing' | 'tail'> = {
    async insert(linked) {
      calls.push('insert')
      for (const one of linked) {
        if (stored.some(({ id, chain, seq }) => id === one.id || (chain === one.chain && seq === one.seq)))
          return 'taken'
        stored.push(one)
        const failure = failures.pop()
        if (failure) throw failure
      }
      return 'stored'
    },
    async existing(ids) {
      calls.push('existing')
      return new Set(ids.filter((id) => stored.some((one) => one.id === id)))
    },
    async tail(chain) {
      calls.push('tail')
      return stored.findLast((one) => one.chain === chain)
    },
  }
  const ids = () => stored.map(({ id }) => id)
  const fault = async () => {
    const inOrder = stored.toSorted((a, b) => (a.chain < b.chain ? -1 : a.chain > b.chain ? 1 : a.seq - b.seq))
    const { chains } = await verify(
      (async function* () {
        yield inOrder
      })(),
    )
    return chains.find(({ firstBad }) => firstBad)?.firstBad
  }
  return { events, stored, calls, failures, ids, fault }
}

test('the end of a chain is read once, and then remembered', async () => {
  const { events, calls, ids, fault } = memory()
  const append = createAppend(events)
  await append([event('a'), event('b')])
  await append([event('c')])
  expect(ids()).toEqual(['a', 'b', 'c'])
  expect(calls).toEqual(['tail', 'insert', 'insert'])
  expect(await fault()).toBeUndefined()
})

test('an event that comes twice is stored once: in one batch, in two batches, in two chains', async () => {
  const { events, stored, ids, fault } = memory()
  const append = createAppend(events)
  await append([event('a'), event('a'), event('b')])
  await append([event('b'), event('c'), event('a')])
  await append([event('a', 1), event('d', 1)])
  expect(ids()).toEqual(['a', 'b', 'c', 'd'])
  expect(stored.at(-1)).toMatchObject({ chain: 'posta.events/1', seq: 1 })
  expect(await fault()).toBeUndefined()
})

test('of two processes that append to one chain, each continues after the other', async () => {
  const { events, ids, fault } = memory()
  const [one, other] = [createAppend(events), createAppend(events)]
  await one([event('a')])
  await other([event('b'), event('c')])
  await one([event('d')])
  await other([event('e'), event('d')])
  expect(ids()).toEqual(['a', 'b', 'c', 'd', 'e'])
  expect(await fault()).toBeUndefined()
})

test('after an insert that failed half-way, the rest is appended where the chain ends', async () => {
  const { events, failures, ids, fault } = memory()
  const append = createAppend(events)
  await append([event('a')])
  failures.push(new Error('The connection broke.'))
  await expect(append([event('b'), event('c')])).rejects.toThrow('broke')
  await append([event('b'), event('c')])
  expect(ids()).toEqual(['a', 'b', 'c'])
  expect(await fault()).toBeUndefined()
})

test('a large batch is inserted in pieces, in order', async () => {
  const { events, calls, ids, fault } = memory()
  const batch = Array.from({ length: 1201 }, (_, n) => event(`e-${n}`))
  await createAppend(events)(batch)
  expect(ids()).toEqual(batch.map(({ id }) => id))
  expect(calls).toEqual(['tail', 'insert', 'insert', 'insert'])
  expect(await fault()).toBeUndefined()
})

test('nothing is stored once the partition is lost', async () => {
  const { events, ids } = memory()
  await expect(createAppend(events)([event('a')], AbortSignal.abort(new Error('lost')))).rejects.toThrow('lost')
  expect(ids()).toEqual([])
})

test('appending rejects where the store refuses every insert', async () => {
  let inserts = 0
  const append = createAppend({
    insert: async () => {
      inserts += 1
      return 'taken'
    },
    existing: async () => new Set(),
    tail: async () => undefined,
  })
  await expect(append([event('a')])).rejects.toThrow('Too many conflicts with others that append to posta.events/0.')
  expect(inserts).toBe(21)
})
