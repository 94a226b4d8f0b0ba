import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import type { Fresh } from '@posta/common/testing/fresh-store.ts'
import { sample, stepped } from '@posta/common/testing/sample.ts'
import type { Store } from '../store/store.ts'
import type { Outcome, Result, Results } from './results.ts'

type Succeeded = Extract<Result, { status: 'succeeded' }>

const facts = { learned: 'something', at: '2026-11-23' }
const period = '2026-11-23'
const allowance = (user: string, day = period, limit = 'test') => ({ user, limit, period: day })
const counts = (amount: number, day = period, limit = 'test') => ({ limit, period: day, amount })
const at = (second: number) => new Date(Date.UTC(2026, 10, 23, 12, 0, second)).toISOString()

/** The result of an operation, of ana. */
export function succeeded(id: string, more: Partial<Omit<Succeeded, 'status'>> = {}): Succeeded {
  return {
    id,
    user: 'ana',
    type: sample.type,
    status: 'succeeded',
    input: sample.input(),
    output: sample.output(),
    facts,
    createdAt: at(0),
    completedAt: at(0),
    counts: counts(100_000_000),
    ...more,
  }
}

function failure(id: string, code: 'dead-lettered' | 'limit-exceeded'): Result & Outcome {
  const { id: same, user, type, facts, createdAt, completedAt } = succeeded(id)
  const error = { code, message: 'A sentence for people.' }
  return { id: same, user, type, facts, createdAt, completedAt, status: 'failed', error }
}

/** One that can be looked up. */
function named(id: string, key: string, order: string, completedAt: string): Result {
  const { counts, ...rest } = succeeded(id, {
    completedAt,
    output: { key, order, exact: '1472.500000000000000000000001' },
  })
  return { ...rest, type: stepped.type, input: { key }, facts: { key, order }, lookup: { key, order } }
}

const withoutFacts = ({ facts, ...summary }: Result) => summary

/** Tests every promise of the port (results.ts). Calls `fresh` for each test. */
export function describeResults(name: string, fresh: () => Fresh<Store>): void {
  describe(`${name} keeps the promises of results:`, () => {
    let here: Fresh<Store>
    let store: Store
    let results: Results

    beforeEach(() => {
      here = fresh()
      store = here.open()
      results = store.results
    })

    afterEach(async () => {
      await here.dispose()
    })

    test('what was appended is found unchanged, also by another process', async () => {
      const stored = [
        succeeded('a', { redrive: 'r1' }),
        failure('b', 'dead-lettered'),
        named('c', 'lima', '2026-11-22', at(1)),
      ]
      expect(await results.append(stored)).toBe(3)
      await store.close()
      const other = here.open().results
      for (const each of stored) expect<unknown>(await other.get(each.id)).toEqual(each)
      const found = await other.find(['c', 'a', 'no such', 'b'])
      expect([...found.keys()].sort()).toEqual(['a', 'b', 'c'])
      for (const each of stored) expect<unknown>(found.get(each.id)).toEqual(withoutFacts(each))
      expect(await other.get('no such')).toBeUndefined()
      expect((await other.find([])).size).toBe(0)
    })

    test('text in any alphabet is kept, with quotes, backslashes and control characters', async () => {
      const text = 'Ñandú 🦤 "quoted" \\ back / \u0000 \u2028 {$set: 1} %'
      const stored = succeeded("it's.$id", { user: 'a"b\\c', output: { [`key ${text.slice(0, 8)}`]: text } })
      await results.append([stored])
      expect<unknown>(await results.get("it's.$id")).toEqual(stored)
      expect(await results.used([allowance('a"b\\c')])).toEqual([100_000_000])
      expect(await results.page({ user: 'a"b\\c', limit: 5 })).toHaveLength(1)
    })

    test('an append stops before the first id that exists, and says how many it stored', async () => {
      await results.append([succeeded('c', { user: 'first' })])
      const appended = ['a', 'b', 'c', 'd'].map((id) => succeeded(id, { user: 'second' }))
      expect(await results.append(appended)).toBe(2)
      const found = await results.find(['a', 'b', 'c', 'd'])
      expect([...found.values()].map(({ id, user }) => `${id} ${user}`).sort()).toEqual([
        'a second',
        'b second',
        'c first',
      ])
      expect(await results.append(appended)).toBe(0)
      expect(await results.append([])).toBe(0)
    })

    test('an append of hundreds also stores nothing after the first id that exists', async () => {
      await results.append([succeeded('10')])
      const many = Array.from({ length: 250 }, (_, number) => succeeded(`${number}`))
      expect(await results.append(many)).toBe(10)
      expect((await results.find(many.map(({ id }) => id))).size).toBe(11)
      const rest = many.slice(11)
      expect(await results.append(rest)).toBe(rest.length)
      expect((await results.find(many.map(({ id }) => id))).size).toBe(many.length)
    })

    test('two members that append the same results store each of them once', async () => {
      const ids = Array.from({ length: 20 }, (_, index) => `op-${String(index).padStart(2, '0')}`)
      const members = [here.open().results, here.open().results, here.open().results]
      const counts = await Promise.all(
        members.map((member, index) => member.append(ids.map((id) => succeeded(id, { user: `member-${index}` })))),
      )
      const stored = [...(await results.find(ids)).values()]
      for (const [index, count] of counts.entries())
        expect(stored.filter(({ user }) => user === `member-${index}`)).toHaveLength(count)
      // Any member may have stored the rest, but the first one is stored.
      expect(stored.some(({ id }) => id === 'op-00')).toBe(true)
      expect(counts.reduce((sum, count) => sum + count, 0)).toBe(stored.length)
    })

    test('what counts is summed exactly, per user and UTC day, in the order of the question', async () => {
      await results.append([
        succeeded('a', { counts: counts(999_999_999_999_999) }),
        succeeded('b', { counts: counts(1) }),
        succeeded('c', { counts: counts(2_147_483_647), user: 'bob' }),
        succeeded('d', { counts: counts(2_147_483_647), user: 'bob' }),
        succeeded('e', { counts: counts(7, '2026-11-24') }),
        succeeded('g', { counts: counts(9, period, 'another') }),
        failure('f', 'limit-exceeded'),
        named('h', 'quito', period, at(1)),
      ])
      const asked = [
        allowance('bob'),
        allowance('ana', '2026-11-24'),
        allowance('nobody'),
        allowance('ana'),
        allowance('bob', '2026-11-24'),
        allowance('ana', period, 'another'),
      ]
      expect(await results.used(asked)).toEqual([4_294_967_294, 7, 0, 1_000_000_000_000_000, 0, 9])
      expect(await results.used([])).toEqual([])
    })

    test('only a dead-lettered failure is replaced, and only once', async () => {
      await results.append([succeeded('a'), failure('b', 'limit-exceeded'), failure('c', 'dead-lettered')])
      const replacement = (id: string) => succeeded(id, { redrive: 'r1', completedAt: at(9), counts: counts(5) })
      expect(await results.replaceDeadLettered(replacement('a'))).toBe(false)
      expect(await results.replaceDeadLettered(replacement('b'))).toBe(false)
      expect(await results.replaceDeadLettered(replacement('no such'))).toBe(false)
      expect(await results.get('no such')).toBeUndefined()
      expect(await results.replaceDeadLettered(replacement('c'))).toBe(true)
      expect(await results.replaceDeadLettered({ ...replacement('c'), redrive: 'r2' })).toBe(false)
      expect<unknown>(await results.get('c')).toEqual(replacement('c'))
      expect(await results.used([allowance('ana')])).toEqual([100_000_005])
      expect((await results.page({ limit: 1 })).map(({ id }) => id)).toEqual(['c'])
    })

    test('a running result counts, is on no page and is not deleted; only its outcome replaces it, and only once', async () => {
      const { output, completedAt, ...rest } = succeeded('a')
      const running: Result = { ...rest, status: 'running', version: 2, decided: { approved: false }, decidedAt: at(0) }
      expect(await results.append([running])).toBe(1)
      expect<unknown>(await results.get('a')).toEqual(running)
      expect((await results.find(['a'])).get('a')?.status).toBe('running')
      expect(await results.used([allowance('ana')])).toEqual([100_000_000])
      expect(await results.page({ limit: 5 })).toEqual([])
      expect(await results.deleteBefore(at(59), 5)).toBe(0)
      expect(await results.replaceDeadLettered(succeeded('a'))).toBe(false)

      await results.settle([])
      await results.settle([
        failure('no such', 'limit-exceeded'),
        { ...failure('a', 'limit-exceeded'), completedAt: at(7) },
      ])
      expect(await results.get('no such')).toBeUndefined()
      expect(await results.used([allowance('ana')])).toEqual([0])
      expect((await results.page({ limit: 5 })).map(({ id, completedAt }) => `${id} ${completedAt}`)).toEqual([
        `a ${at(7)}`,
      ])
      await results.settle([succeeded('a')])
      expect((await results.get('a'))?.status).toBe('failed')
    })

    test('of outcomes that are settled together each replaces its own result, with its facts', async () => {
      const ids = ['a', 'b', 'c']
      const outcomes = ids.map((id, index) =>
        succeeded(id, { counts: counts(index), ...(id === 'b' ? { facts: undefined } : {}) }),
      )
      await results.append(
        outcomes.map(({ output, completedAt, ...rest }): Result => {
          return { ...rest, status: 'running', version: 1, decided: null, decidedAt: at(0) }
        }),
      )
      await results.settle(outcomes.slice(1))
      expect((await results.get('a'))?.status).toBe('running')
      expect<unknown>(await results.get('b')).toEqual(outcomes[1])
      expect<unknown>(await results.get('c')).toEqual(outcomes[2])
      expect(await results.used([allowance('ana')])).toEqual([3])
    })

    test('pages go from new to old without gap or repetition, while newer results are stored', async () => {
      const stored = Array.from({ length: 23 }, (_, index) =>
        succeeded(`op-${String(index).padStart(2, '0')}`, {
          user: index % 3 === 0 ? 'bob' : 'ana',
          completedAt: at(Math.floor(index / 5)),
        }),
      )
      await results.append(stored)
      const newestFirst = stored.map(({ id }) => id).reverse()

      async function readAll(user?: string): Promise<string[]> {
        const ids: string[] = []
        for (let page = await results.page({ ...(user && { user }), limit: 4 }); page.length > 0; ) {
          ids.push(...page.map(({ id }) => id))
          const before = page.at(-1)
          if (!before) break
          await results.append([succeeded(`late-${user}-${ids.length}`, { user: 'bob', completedAt: at(50) })])
          page = await results.page({ ...(user && { user }), limit: 4, before })
        }
        return ids
      }

      expect(await readAll()).toEqual(newestFirst)
      const isOf = (user: string) => (id: string) => stored.some((each) => each.id === id && each.user === user)
      expect(await readAll('ana')).toEqual(newestFirst.filter(isOf('ana')))
      expect(await results.page({ user: 'nobody', limit: 4 })).toEqual([])
    })

    test('the newest result of a key is that of the latest order, and of these the one stored last', async () => {
      await results.append([
        named('a', 'quito', '2026-11-22', at(9)),
        named('b', 'quito', '2026-11-23', at(1)),
        named('c', 'quito', '2026-11-23', at(3)),
        named('d', 'quito', '2026-11-23', at(2)),
        named('e', 'lima', '2026-11-24', at(1)),
        succeeded('f', { lookup: { key: 'quito', order: '2026-11-25' } }),
        { ...failure('g', 'dead-lettered'), type: stepped.type },
      ])
      expect<unknown>(await results.newest(stepped.type, 'quito')).toEqual(named('c', 'quito', '2026-11-23', at(3)))
      expect((await results.newest(sample.type, 'quito'))?.id).toBe('f')
      expect(await results.newest(stepped.type, 'paris')).toBeUndefined()
    })

    test('the oldest results are deleted, at most as many as asked, and no others, even by two members at once', async () => {
      const stored = Array.from({ length: 10 }, (_, index) => succeeded(`op-${index}`, { completedAt: at(index) }))
      await results.append(stored.toReversed())
      expect(await results.deleteBefore(at(7), 3)).toBe(3)
      expect((await results.page({ limit: 20 })).map(({ id }) => id).at(-1)).toBe('op-3')
      await Promise.all([results.deleteBefore(at(7), 3), here.open().results.deleteBefore(at(7), 3)])
      await results.deleteBefore(at(7), 3)
      expect((await results.page({ limit: 20 })).map(({ id }) => id)).toEqual(['op-9', 'op-8', 'op-7'])
      expect(await results.deleteBefore(at(7), 3)).toBe(0)
      expect(await results.get('op-6')).toBeUndefined()
      expect(await results.used([allowance('ana')])).toEqual([300_000_000])
    })

    test('ping resolves while the store answers', async () => {
      expect(await store.ping()).toBeUndefined()
    })
  })
}
