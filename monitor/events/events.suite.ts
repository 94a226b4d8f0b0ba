import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Fresh } from '@posta/common/testing/fresh-store.ts'
import { link, START, verify } from '../audit/chain.ts'
import type { Store } from '../store/store.ts'
import { deliver, loggedIn, NOON_MS, requested, succeeded } from '../testing/messages.ts'
import { createAppend } from './append.ts'
import type { NewEvent, StoredEvent } from './events.ts'
import { minuteOf, toEvent } from './record.ts'

const logins = (count: number, partition = 0, prefix = 'e'): NewEvent[] =>
  Array.from({ length: count }, (_, n) => toEvent(deliver(loggedIn(`${prefix}-${n}`, 'ana', n), n, partition), NOON_MS))

const linked = (...events: NewEvent[]) => link(START, events)
const ids = (found: readonly { readonly id: string }[]) => found.map(({ id }) => id)

/** Every promise of the port (events.ts), as tests. `fresh` is called for each. */
export function describeStore(name: string, fresh: () => Fresh<Store>): void {
  describe(`${name} keeps the promises of events:`, () => {
    let here: Fresh<Store>
    let store: Store

    beforeEach(() => {
      here = fresh()
      store = here.open()
    })

    afterEach(async () => {
      await here.dispose()
    })

    test('an event is read as it was stored, also after the store was opened again', async () => {
      const [request, result] = linked(
        toEvent(deliver(requested('op-1')), NOON_MS),
        toEvent(deliver(succeeded('op-1')), NOON_MS),
      )
      if (!request || !result) throw new Error('there are two')
      expect(await store.events.insert([request])).toBe('stored')
      expect(await store.events.insert([{ ...result, chain: 'posta.results/0', seq: 1 }])).toBe('stored')
      await store.close()
      const reopened = here.open()
      expect(await reopened.events.get(request.id)).toEqual(request)
      expect((await reopened.events.get(result.id))?.durationMs).toBe(40)
      expect(await reopened.events.get('unknown')).toBeUndefined()
    })

    test('of two events at one place in a chain, or with one id, the first stays and the second is refused', async () => {
      const [first, second, third] = linked(...logins(3))
      if (!first || !second || !third) throw new Error('there are three')
      expect(await store.events.insert([first, second])).toBe('stored')
      expect(await store.events.insert([{ ...third, seq: 2 }])).toBe('taken')
      expect(await store.events.insert([{ ...first, chain: 'posta.events/1', seq: 1 }])).toBe('taken')
      expect(await store.events.get(first.id)).toEqual(first)
      expect(await store.events.get(third.id)).toBeUndefined()
    })

    test('no event after a refused one is added', async () => {
      const [first, second, third] = linked(...logins(3))
      if (!first || !second || !third) throw new Error('there are three')
      await store.events.insert([first, second])
      const [other] = linked(...logins(1, 0, 'other'))
      if (!other) throw new Error('there is one')
      expect(await store.events.insert([{ ...other, seq: 2 }, third])).toBe('taken')
      expect(await store.events.get(third.id)).toBeUndefined()
    })

    test('no event after a refused one is added, even of hundreds', async () => {
      const events = linked(...logins(250))
      const [first, second, ...rest] = events
      if (!first || !second) throw new Error('there are hundreds')
      await store.events.insert([first, second])
      const [other] = linked(...logins(1, 0, 'other'))
      if (!other) throw new Error('there is one')
      expect(await store.events.insert([{ ...other, seq: 2 }, ...rest])).toBe('taken')
      expect(await store.events.existing(rest.map(({ id }) => id))).toEqual(new Set())
      expect(await store.events.insert(rest)).toBe('stored')
      expect((await store.events.existing(rest.map(({ id }) => id))).size).toBe(rest.length)
    })

    test('the store says which ids exist, and where a chain ends', async () => {
      const events = linked(...logins(3))
      await store.events.insert(events)
      expect(await store.events.existing(['e-1', 'unknown', 'e-2'])).toEqual(new Set(['e-1', 'e-2']))
      expect(await store.events.existing([])).toEqual(new Set())
      expect(await store.events.tail('posta.events/0')).toEqual({ seq: 3, hash: events[2]?.hash ?? '' })
      expect(await store.events.tail('posta.events/1')).toBeUndefined()
    })

    describe('the list', () => {
      beforeEach(async () => {
        const events = [
          toEvent(deliver(loggedIn('a', 'ana', 0)), NOON_MS),
          toEvent(deliver(requested('op-1', 'ana', 1000)), NOON_MS),
          toEvent(deliver(requested('op-2', 'bob', 2000)), NOON_MS),
          toEvent(deliver(loggedIn('d', 'bob', 2000)), NOON_MS),
          toEvent(deliver(succeeded('op-1', 'ana', 3000)), NOON_MS),
        ]
        await createAppend(store.events)(events)
      })

      test('has the newest events first, and orders those of one time by id', async () => {
        expect(ids(await store.events.list({}, { limit: 10 }))).toEqual([
          'op-1.succeeded',
          'op-2.requested',
          'd',
          'op-1.requested',
          'a',
        ])
      })

      test.each([
        [{ user: 'ana' }, ['op-1.succeeded', 'op-1.requested', 'a']],
        [{ type: 'posta.user.logged-in' }, ['d', 'a']],
        [{ operation: 'op-1' }, ['op-1.succeeded', 'op-1.requested']],
        [{ user: 'bob', type: 'posta.user.logged-in' }, ['d']],
        [{ user: 'bob', operation: 'op-1' }, []],
        [{ fromMs: NOON_MS + 1000, untilMs: NOON_MS + 3000 }, ['op-2.requested', 'd', 'op-1.requested']],
        [{ user: 'ana', fromMs: NOON_MS + 1 }, ['op-1.succeeded', 'op-1.requested']],
        [{ type: 'posta.operation.requested', untilMs: NOON_MS + 2000 }, ['op-1.requested']],
        [
          { user: undefined, type: undefined, operation: undefined },
          ['op-1.succeeded', 'op-2.requested', 'd', 'op-1.requested', 'a'],
        ],
      ])('has only the events that fit %j', async (filter, expected) => {
        expect(ids(await store.events.list(filter, { limit: 10 }))).toEqual(expected)
      })

      test('continues after any event, also between two of one time, and with a filter', async () => {
        const seen: StoredEvent[] = []
        for (;;) {
          const before = seen.at(-1)
          const page = await store.events.list({}, { limit: 1, ...(before && { before }) })
          if (page.length === 0) break
          seen.push(...page)
        }
        expect(ids(seen)).toEqual(['op-1.succeeded', 'op-2.requested', 'd', 'op-1.requested', 'a'])
        const before = { timeMs: NOON_MS + 2000, id: 'op-2.requested' }
        expect(ids(await store.events.list({ user: 'bob' }, { limit: 9, before }))).toEqual(['d'])
        expect(ids(await store.events.list({ untilMs: NOON_MS + 1 }, { limit: 9, before }))).toEqual(['a'])
      })

      test('events are counted by minute and type, and durations are summed up', async () => {
        const minute = minuteOf(NOON_MS)
        await createAppend(store.events)([toEvent(deliver(loggedIn('later', 'ana', 60_000), 9), NOON_MS)])
        const counts = await store.events.countByMinute({ first: minute, last: minute + 1 })
        expect(counts.toSorted((a, b) => a.minute - b.minute || a.type.localeCompare(b.type))).toEqual([
          { minute, type: 'posta.operation.requested', count: 2 },
          { minute, type: 'posta.operation.succeeded', count: 1 },
          { minute, type: 'posta.user.logged-in', count: 2 },
          { minute: minute + 1, type: 'posta.user.logged-in', count: 1 },
        ])
        expect(await store.events.countByMinute({ first: minute + 2, last: minute + 9 })).toEqual([])
        await createAppend(store.events)([toEvent(deliver(succeeded('op-2', 'bob', 500), 9), NOON_MS)])
        expect(await store.events.durations({ first: minute, last: minute })).toEqual({
          totalMs: 3500,
          longestMs: 3000,
        })
        expect(await store.events.durations({ first: minute + 1, last: minute + 1 })).toEqual({
          totalMs: 0,
          longestMs: 0,
        })
      })
    })

    test('the events after given places of chains come in the order of each chain, up to the limit', async () => {
      await createAppend(store.events)([...logins(4, 0, 'x'), ...logins(3, 1, 'y'), ...logins(2, 2, 'z')])
      const seqs = new Map([
        ['posta.events/0', 2],
        ['posta.events/1', 0],
        ['posta.events/5', 0],
      ])
      expect(ids(await store.events.after(seqs, 10)).toSorted()).toEqual(['x-2', 'x-3', 'y-0', 'y-1', 'y-2'])
      const some = await store.events.after(seqs, 3)
      expect(some).toHaveLength(3)
      for (const [, ofChain] of Map.groupBy(some, ({ chain }) => chain))
        expect(ids(ofChain)).toEqual(ids(ofChain).toSorted())
      expect(await store.events.after(new Map(), 3)).toEqual([])
    })

    test('all events are read in pages, ordered by chain and place, from any place', async () => {
      await createAppend(store.events)([...logins(1200, 1, 'y'), ...logins(3, 0, 'x')])
      const walk = async (after?: { chain: string; seq: number }) =>
        (await Array.fromAsync(store.events.inChainOrder(after))).flat().map(({ chain, seq }) => `${chain} ${seq}`)
      const all = await walk()
      expect(all).toHaveLength(1203)
      expect(all.slice(0, 4)).toEqual(['posta.events/0 1', 'posta.events/0 2', 'posta.events/0 3', 'posta.events/1 1'])
      expect(all.at(-1)).toBe('posta.events/1 1200')
      expect(await walk({ chain: 'posta.events/0', seq: 2 })).toEqual(all.slice(2))
      for await (const page of store.events.inChainOrder()) {
        expect(page.length).toBeLessThanOrEqual(500)
        break
      }
    })

    test('pruning deletes the first events of one chain, at most as many as asked for, and none from the given place on', async () => {
      await createAppend(store.events)([...logins(6, 0, 'x'), ...logins(6, 1, 'y')])
      expect(await store.events.prune('posta.events/0', 1, 9)).toBe(0)
      expect(await store.events.prune('posta.events/0', 5, 3)).toBe(3)
      expect(await store.events.prune('posta.events/0', 5, 3)).toBe(1)
      expect(await store.events.prune('posta.events/0', 5, 3)).toBe(0)
      expect(await store.events.prune('posta.events/5', 5, 3)).toBe(0)
      const left = (await Array.fromAsync(store.events.inChainOrder())).flat()
      expect(ids(left)).toEqual(['x-4', 'x-5', 'y-0', 'y-1', 'y-2', 'y-3', 'y-4', 'y-5'])
      expect(await store.events.tail('posta.events/0')).toMatchObject({ seq: 6 })
    })

    test('replicas that append to one chain at the same time keep it whole, with every event once', async () => {
      const events = logins(120)
      const replicas = [store, here.open(), here.open()].map((each) => createAppend(each.events))
      // Each has most of them, so that they race for the places and for the ids.
      await Promise.all(
        replicas.map(async (append, replica) => {
          const own = events.filter((_, index) => index % 3 !== replica)
          for (let start = 0; start < own.length; start += 8) await append(own.slice(start, start + 8))
        }),
      )
      const { chains } = await verify(store.events.inChainOrder())
      expect(chains).toMatchObject([{ chain: 'posta.events/0', events: 120, head: { seq: 120 } }])
      expect(chains[0]).not.toHaveProperty('firstBad')
      expect(await store.events.existing(ids(events))).toEqual(new Set(ids(events)))
    })

    test('a ping resolves', async () => {
      await store.ping()
    })
  })
}
