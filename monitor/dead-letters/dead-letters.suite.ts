import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Fresh } from '@posta/common/testing/fresh-store.ts'
import type { Store } from '../store/store.ts'
import { NOON_MS } from '../testing/messages.ts'
import type { DeadLetterPosition, DeadLetterSummary, Decision, StoredDeadLetter } from './dead-letters.ts'

const ids = (found: Iterable<{ readonly id: string }>) => [...found].map(({ id }) => id)

const redriven = (by: string): Decision => ({
  to: 'redriven',
  event: 'dl.redriven',
  by,
  at: '2026-11-23T12:00:00.000Z',
})
const discarded = (by: string): Decision => ({ ...redriven(by), to: 'discarded', reason: 'Not needed any more.' })

function deadLetter(id: string, more: Partial<StoredDeadLetter> = {}): StoredDeadLetter {
  return {
    id,
    status: 'open',
    receivedAtMs: NOON_MS,
    reason: 'The value is not JSON in UTF-8.',
    group: 'posta.processor',
    topic: 'posta.requests',
    partition: 0,
    offset: 7,
    timestampMs: NOON_MS,
    redrivable: true,
    type: 'posta.operation.requested',
    user: 'ana',
    operation: undefined,
    preview: '{',
    decision: undefined,
    original: { key: 'YW5h', value: 'ew==', headers: [{ name: 'ce_id', value: 'eA==' }] },
    ...more,
  }
}

/** Every promise of the port (dead-letters.ts), as tests. `fresh` is called for each. */
export function describeDeadLetters(name: string, fresh: () => Fresh<Store>): void {
  describe(`${name} keeps the promises of dead letters:`, () => {
    let here: Fresh<Store>
    let store: Store

    beforeEach(() => {
      here = fresh()
      store = here.open()
    })

    afterEach(async () => {
      await here.dispose()
    })

    test('a dead letter is kept once, as it first was', async () => {
      const stored = deadLetter('dl-1', { operation: 'op-1' })
      const without = { group: undefined, type: undefined, user: undefined, redrivable: false }
      await store.deadLetters.add([stored])
      await store.deadLetters.add([deadLetter('dl-1', { reason: 'another' }), deadLetter('dl-2', without)])
      expect(await store.deadLetters.get('dl-1')).toEqual(stored)
      expect(await here.open().deadLetters.get('dl-2')).toEqual(deadLetter('dl-2', without))
      expect(await store.deadLetters.get('unknown')).toBeUndefined()
      expect(await store.deadLetters.find(['dl-1', 'unknown'])).toEqual(new Map([['dl-1', stored]]))
      expect(await store.deadLetters.find([])).toEqual(new Map())
    })

    describe('the lists', () => {
      const ofResults = { topic: 'posta.results', group: 'posta.gateway' } as const
      beforeEach(async () => {
        await store.deadLetters.add([
          deadLetter('a', { receivedAtMs: 1, operation: 'op-1' }),
          deadLetter('b', { receivedAtMs: 2, ...ofResults, type: 'posta.operation.failed' }),
          deadLetter('c', { receivedAtMs: 2, user: 'bob', redrivable: false }),
          deadLetter('d', { receivedAtMs: 3, ...ofResults }),
        ])
        const decisions = [{ id: 'c', decision: discarded('olga') }]
        await store.deadLetters.decide(decisions)
        await store.deadLetters.confirm(decisions)
      })

      test.each([
        [{}, 'abcd'],
        [{ topic: 'posta.results' }, 'bd'],
        [{ group: 'posta.processor' }, 'ac'],
        [{ status: 'discarded' }, 'c'],
        [{ status: 'open', topic: 'posta.requests' }, 'a'],
        [{ type: 'posta.operation.failed' }, 'b'],
        [{ user: 'ana' }, 'abd'],
        [{ user: 'ana', operation: 'op-1' }, 'a'],
        [{ user: 'bob', operation: 'op-1' }, ''],
        [{ redrivable: true, topic: 'posta.requests' }, 'a'],
        [{ fromMs: 2 }, 'bcd'],
        [{ fromMs: 2, untilMs: 3, user: undefined }, 'bc'],
        [{ user: 'ana', untilMs: 3 }, 'ab'],
      ] as const)(
        'have what the filter %j selects, in both directions, and so does the count',
        async (filter, expected) => {
          const { list, oldest, count } = store.deadLetters
          expect(ids(await oldest(filter, { limit: 9 })).join('')).toBe(expected)
          expect(
            ids(await list(filter, { limit: 9 }))
              .toReversed()
              .join(''),
          ).toBe(expected)
          expect(await count(filter, { atMost: 9 })).toBe(expected.length)
        },
      )

      test('continue after a page, also between two of one time and within bounds, and leave out the bytes', async () => {
        const { list, oldest, count } = store.deadLetters
        const walk = async (page: (position?: DeadLetterPosition) => Promise<DeadLetterSummary[]>) => {
          const seen: DeadLetterSummary[] = []
          for (let found = await page(); found.length > 0; found = await page(seen.at(-1))) seen.push(...found)
          return ids(seen).join('')
        }
        expect(await walk((before) => list({}, { limit: 1, before }))).toBe('dcba')
        expect(await walk((after) => oldest({}, { limit: 1, after }))).toBe('abcd')
        expect(await walk((before) => list({ fromMs: 2, untilMs: 3 }, { limit: 1, before }))).toBe('cb')
        expect(await walk((after) => oldest({ untilMs: 3 }, { limit: 2, after }))).toBe('abc')
        expect(await count({}, { atMost: 9, after: { receivedAtMs: 2, id: 'b' } })).toBe(2)
        expect(await count({}, { atMost: 3 })).toBe(3)
        const [newest] = await list({}, { limit: 1 })
        const { original, ...summary } = deadLetter('d', { receivedAtMs: 3, ...ofResults })
        expect(newest).toEqual(summary satisfies DeadLetterSummary)
      })

      test('show what was decided, confirmed or not', async () => {
        const decision = redriven('olga')
        await store.deadLetters.decide([{ id: 'a', decision }])
        const found = await store.deadLetters.list({ topic: 'posta.requests' }, { limit: 9 })
        expect(found.map((each) => [each.status, each.decision])).toEqual([
          ['discarded', discarded('olga')],
          ['open', decision],
        ])
      })
    })

    test('the first decision stays, whatever it was, and its confirmation changes the status', async () => {
      const { add, get, decide, confirm } = store.deadLetters
      await add([deadLetter('dl-1'), deadLetter('dl-2'), deadLetter('dl-3')])
      const [first, second] = [redriven('olga'), discarded('olga')]
      const both = [
        { id: 'dl-1', decision: first },
        { id: 'dl-2', decision: second },
      ]
      expect(await decide(both)).toEqual(new Set(['dl-1', 'dl-2']))
      expect(await get('dl-1')).toMatchObject({ status: 'open', decision: first })
      const others = ['dl-1', 'dl-2', 'dl-3'].map((id) => ({ id, decision: redriven('oscar') }))
      expect(await decide(others)).toEqual(new Set(['dl-3']))
      expect(await get('dl-2')).toMatchObject({ status: 'open', decision: second })
      await confirm(both)
      expect(await get('dl-1')).toEqual(deadLetter('dl-1', { status: 'redriven', decision: first }))
      expect(await here.open().deadLetters.get('dl-2')).toEqual(
        deadLetter('dl-2', { status: 'discarded', decision: second }),
      )
      expect(await get('dl-3')).toMatchObject({ status: 'open', decision: redriven('oscar') })
      expect(await decide(both)).toEqual(new Set())
      await confirm(both)
      expect(await get('dl-1')).toMatchObject({ status: 'redriven', decision: first })
      expect(await decide([])).toEqual(new Set())
      await confirm([])
    })

    test('when several replicas decide at once, one of them decides each dead letter', async () => {
      const letters = Array.from({ length: 10 }, (_, n) => deadLetter(`dl-${n}`))
      await store.deadLetters.add(letters)
      const operators = ['olga', 'oscar', 'otto', 'ole'].map((by, n) => ({
        by,
        deadLetters: [store, here.open(), here.open(), here.open()][n]?.deadLetters ?? store.deadLetters,
        decision: n % 2 === 0 ? redriven(by) : discarded(by),
      }))
      const won = await Promise.all(
        operators.map(async ({ by, deadLetters, decision }) => {
          const decisions = letters.map(({ id }) => ({ id, decision }))
          return [by, await deadLetters.decide(decisions)] as const
        }),
      )
      expect(won.flatMap(([, winners]) => [...winners]).toSorted()).toEqual(ids(letters))
      await Promise.all(
        operators.map(async ({ by, deadLetters }) => {
          const standing = [...(await deadLetters.find(ids(letters))).values()]
          for (const { id, decision } of standing)
            expect(decision?.by === by).toBe(won.some(([winner, winners]) => winner === by && winners.has(id)))
          await deadLetters.confirm(standing.flatMap(({ id, decision }) => (decision ? [{ id, decision }] : [])))
        }),
      )
      for (const { status, decision } of (await store.deadLetters.find(ids(letters))).values())
        expect(status).toBe(decision?.to ?? 'open')
      expect(await store.deadLetters.unconfirmed({ limit: 20 })).toEqual([])
    })

    test('what was decided and not confirmed is found, page by page, with its bytes', async () => {
      await store.deadLetters.add(['a', 'b', 'c', 'd', 'e'].map((id) => deadLetter(id)))
      const decisions = ['e', 'c', 'b', 'a'].map((id) => ({ id, decision: redriven('olga') }))
      await store.deadLetters.decide(decisions)
      await store.deadLetters.confirm(decisions.slice(1, 2))
      const { unconfirmed } = here.open().deadLetters
      expect(await unconfirmed({ limit: 2 })).toEqual(
        ['a', 'b'].map((id) => deadLetter(id, { decision: redriven('olga') })),
      )
      expect(ids(await unconfirmed({ limit: 2, afterId: 'b' }))).toEqual(['e'])
    })

    test('what was decided and confirmed long ago is deleted in portions, and nothing else is', async () => {
      const { add, decide, confirm, prune, list } = store.deadLetters
      await add(['a', 'b', 'c', 'open', 'unconfirmed', 'recent'].map((id) => deadLetter(id)))
      const old = ['a', 'b', 'c'].map((id) => ({ id, decision: discarded('olga') }))
      const recent = [{ id: 'recent', decision: { ...redriven('olga'), at: '2026-11-24T12:00:00.000Z' } }]
      await decide([...old, ...recent, { id: 'unconfirmed', decision: redriven('olga') }])
      await confirm([...old, ...recent])
      const beforeMs = NOON_MS + 1
      expect(await prune(beforeMs - 1, 9)).toBe(0)
      expect(await prune(beforeMs, 2)).toBe(2)
      expect(await prune(beforeMs, 2)).toBe(1)
      expect(await prune(beforeMs, 2)).toBe(0)
      expect(ids(await list({}, { limit: 9 })).toSorted()).toEqual(['open', 'recent', 'unconfirmed'])
      // Nothing is left of the decision: the same could be set aside, and decided on, anew.
      await add([deadLetter('a')])
      expect(await decide(old.slice(0, 1))).toEqual(new Set(['a']))
    })
  })
}
