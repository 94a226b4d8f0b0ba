import { afterEach, describe, expect, test } from 'bun:test'
import { encode } from '@posta/common/messages/envelope.ts'
import { topics } from '@posta/common/messages/topics.ts'
import type { OperationType } from '@posta/common/operations/catalog.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { type Fresh, freshDatabase, freshFile } from '@posta/common/testing/fresh-store.ts'
import { sample, stepped } from '@posta/common/testing/sample.ts'
import fc from 'fast-check'
import { Registry } from 'prom-client'
import { type RequestsOptions, receiveRequests } from './receive-requests.ts'
import type { Results } from './results/results.ts'
import type { NewRun } from './runs/runs.ts'
import { openEmbedded } from './store/embedded.ts'
import { openMongo } from './store/mongo.ts'
import type { Store } from './store/store.ts'
import {
  allowance,
  bounds,
  contracts,
  countingPerformers,
  createFakeRequests,
  decideSample,
  NOON,
  NOON_MS,
  requested,
} from './testing/requests.ts'

const cleanups: (() => Promise<void> | void)[] = []

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const { type, input } = sample

/** A member of the group, with a fake broker. */
async function member(store: Fresh<Store>, more: Partial<RequestsOptions> = {}) {
  const { results, runs } = store.open()
  const requests = createFakeRequests()
  const metrics = new Registry()
  const consumer = receiveRequests({
    broker: requests.broker,
    results,
    contracts,
    performers: countingPerformers(),
    bounds,
    settings: new Map(),
    runs,
    runner: { async admit() {}, wake() {} },
    log: createLog('test', 'silent'),
    metrics,
    deps: { ...systemDeps, now: () => NOON_MS + 1000 },
    firstPauseMs: 1,
    ...more,
  })
  await consumer.start()
  return { ...requests, results, metrics }
}

const outcomes = (replies: ReturnType<Awaited<ReturnType<typeof member>>['replies']>) =>
  replies.map(({ type, data }) =>
    'error' in data ? `${data.operation} ${data.error.code}` : `${data.operation} ${type.split('.').at(-1)}`,
  )

const stores = [{ on: 'the embedded store', fresh: () => freshFile<Store>(openEmbedded), runs: 25 }]
const mongoUrl = process.env.TEST_MONGO_URL
if (mongoUrl) stores.push({ on: 'the MongoDB store', fresh: () => freshDatabase<Store>(mongoUrl, openMongo), runs: 5 })

describe.each(stores)('on $on', ({ fresh, runs }) => {
  function newStore(): Fresh<Store> {
    const store = fresh()
    cleanups.push(() => store.dispose())
    return store
  }

  describe('a batch of requests', () => {
    test('is performed, stored and answered in order', async () => {
      const { deliver, replies, results, committed } = await member(newStore())
      await deliver([
        requested('a', { input: input(101) }),
        requested('b', { user: 'bob' }),
        requested('c', { input: input(9900) }),
      ])
      const [a, b, c] = replies()
      expect(a).toMatchObject({
        id: 'a.result',
        type: 'posta.operation.succeeded',
        time: '2026-11-23T12:00:01.000Z',
        subject: 'a',
        traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
        data: {
          user: 'ana',
          operation: 'a',
          operationType: type,
          output: sample.output(101),
          createdAt: NOON,
          completedAt: '2026-11-23T12:00:01.000Z',
        },
      })
      expect(b).toMatchObject({ data: { user: 'bob', output: sample.output() } })
      expect(c).toMatchObject({ type: 'posta.operation.failed', data: { error: { code: 'limit-exceeded' } } })
      const stored = await results.get('a')
      expect(stored?.counts).toEqual({ limit: 'test', period: '2026-11-23', amount: 101 })
      expect(stored?.facts).toEqual(sample.facts)
      const failed = await results.get('c')
      expect(failed?.status).toBe('failed')
      expect(failed?.facts).toEqual(sample.facts)
      expect(failed?.counts).toBeUndefined()
      expect(committed()).toBe(3)
    })

    test('that comes again gets the same replies, byte for byte, also after a restart and much later', async () => {
      const store = newStore()
      const batch = [
        requested('a'),
        requested('b', { input: sample.sameInput }),
        requested('c', { input: input(99999) }),
      ]
      const first = await member(store)
      await first.deliver(batch)
      await first.deliver(batch)
      const later = await member(store, { deps: { ...systemDeps, now: () => NOON_MS + 86_400_000 } })
      await later.deliver(batch)
      expect(first.published).toHaveLength(6)
      expect(first.published.slice(3)).toEqual(first.published.slice(0, 3))
      expect(later.published).toEqual(first.published.slice(0, 3))
      expect(await later.results.page({ limit: 10 })).toHaveLength(3)
    })

    test('that was stored but not answered before a crash is answered from the store, and counts once', async () => {
      const store = newStore()
      const crashed = await member(store)
      crashed.failNextPublishes(Number.POSITIVE_INFINITY)
      const never = crashed.deliver([requested('a', { input: input(6000) }), requested('b', { input: input(6000) })])
      await eventually(async () => (await crashed.results.find(['b'])).size > 0)
      crashed.losePartition()
      await expect(never).rejects.toThrow()

      const { deliver, replies, results } = await member(store, {
        deps: { ...systemDeps, now: () => NOON_MS + 60_000 },
      })
      await deliver([
        requested('a', { input: input(6000) }),
        requested('b', { input: input(6000) }),
        requested('c', { input: input(4000) }),
      ])
      expect(outcomes(replies())).toEqual(['a succeeded', 'b limit-exceeded', 'c succeeded'])
      expect(replies()[0]?.data.completedAt).toBe('2026-11-23T12:00:01.000Z')
      expect(await results.used([allowance('ana')])).toEqual([10_000])
    })

    test('is neither stored nor answered by a member that has lost its partition', async () => {
      const { deliver, losePartition, published, results } = await member(newStore())
      losePartition()
      await expect(deliver([requested('a')])).rejects.toThrow('The partition is lost.')
      expect((await results.find(['a'])).size).toBe(0)
      expect(published).toEqual([])
    })

    test('with the same operation twice performs it once', async () => {
      const { deliver, replies, results } = await member(newStore())
      await deliver([requested('a', { input: input(6000) }), requested('b'), requested('a', { input: input(6000) })])
      expect(outcomes(replies())).toEqual(['a succeeded', 'b succeeded'])
      expect(await results.used([allowance('ana')])).toEqual([6001])
    })

    test('of 500, of which one cannot be performed, has 499 successes and one failure, all answered', async () => {
      const { deliver, replies, published, committed, results } = await member(newStore())
      const ids = Array.from({ length: 500 }, (_, index) => `op-${index}`)
      await deliver(
        ids.map((id, index) =>
          requested(id, { user: `u${index % 7}`, input: index === 250 ? sample.wrong.input : input() }),
        ),
      )
      await eventually(() => committed() === 500)
      const failed = replies().filter(({ type }) => type === 'posta.operation.failed')
      expect(outcomes(failed)).toEqual(['op-250 dead-lettered'])
      expect(new Set(replies().map(({ subject }) => subject))).toEqual(new Set(ids))
      expect(published.filter(({ topic }) => topic === topics.deadLetters)).toHaveLength(1)
      const poison = await results.get('op-250')
      expect(poison).toMatchObject({ status: 'failed', error: { code: 'dead-lettered' } })
      expect(poison?.counts).toBeUndefined()
    })

    test('is counted in the metrics when it is stored, but not when it comes again', async () => {
      const { deliver, metrics } = await member(newStore())
      await deliver([requested('a'), requested('b', { input: input(99999) })])
      await deliver([requested('a')])
      const text = await metrics.metrics()
      expect(text).toContain(`posta_operations_performed_total{type="${type}",status="succeeded"} 1`)
      expect(text).toContain(`posta_operations_performed_total{type="${type}",status="failed"} 1`)
      expect(text).toContain('posta_request_batch_size_count 2')
      expect(text).toContain('posta_request_batch_size_sum 3')
    })

    test('has each decision that took more than 50 ms warned of, with its type', async () => {
      let nowMs = 0
      const tookMs = [50, 50.6]
      const decide: typeof decideSample = (asked) => {
        nowMs += tookMs.shift() ?? 0
        return decideSample(asked)
      }
      const warnings: unknown[] = []
      const log = createLog('test', 'silent')
      log.warn = (...said: unknown[]) => void warnings.push(said)
      const { deliver } = await member(newStore(), {
        performers: countingPerformers(decide),
        log,
        deps: { ...systemDeps, now: () => NOON_MS, monotonicMs: () => nowMs },
      })
      await deliver([requested('a'), requested('b'), requested('c')])
      expect(warnings).toEqual([[{ type, tookMs: 51 }, 'a decision took long: it holds up all others']])
    })

    test.each([
      [0, 'once', 1, []],
      [4, 'at once until that is over', 5, []],
      [5, 'five times at once, and again after a pause', 6, ['Another member of the group keeps storing']],
    ] as const)('that another member overtakes %i times is decided %s', async (times, _, decisions, said) => {
      const store = newStore()
      const mine = store.open().results
      let [finds, appends] = [0, 0]
      const results: Results = {
        ...mine,
        find(ids) {
          finds += 1
          return mine.find(ids)
        },
        append: (appended) => (++appends <= times ? Promise.resolve(0) : mine.append(appended)),
      }
      const reasons: string[] = []
      const log = createLog('test', 'silent')
      log.warn = ({ err }: { err?: unknown }) => void reasons.push(String(err))
      const { deliver, replies } = await member(store, { results, log })
      await deliver([requested('a')])
      expect(outcomes(replies())).toEqual(['a succeeded'])
      expect(finds).toBe(decisions)
      expect(reasons).toEqual(said.map((reason) => expect.stringContaining(reason)))
    })

    test('is not stored by a member that loses its partition while it reads', async () => {
      const mine = newStore().open().results
      const lost: (() => void)[] = []
      const results: Results = {
        ...mine,
        async find(ids) {
          const found = await mine.find(ids)
          for (const lose of lost.splice(0)) lose()
          return found
        },
      }
      const { deliver, losePartition, published } = await member(newStore(), { results })
      lost.push(losePartition)
      await expect(deliver([requested('a')])).rejects.toThrow()
      expect((await mine.find(['a'])).size).toBe(0)
      expect(published).toEqual([])
    })
  })

  describe('a limit', () => {
    test('applies per user and per UTC day on which the operation was accepted', async () => {
      const { deliver, replies } = await member(newStore())
      const all = { input: input(10000) }
      await deliver([
        requested('a', all),
        requested('b'),
        requested('c', { ...all, user: 'bob' }),
        requested('d', { ...all, createdAt: '2026-11-24T00:00:00.000Z' }),
        requested('e', { ...all, createdAt: '2026-11-24T23:30:00-03:00' }),
        requested('f', { createdAt: '2026-11-23T23:59:59.999Z' }),
      ])
      expect(outcomes(replies())).toEqual([
        'a succeeded',
        'b limit-exceeded',
        'c succeeded',
        'd succeeded',
        'e succeeded',
        'f limit-exceeded',
      ])
    })

    test('gives the same outcomes however a sequence of operations is cut into batches', async () => {
      const operations = fc.array(
        fc.record({
          user: fc.constantFrom('ana', 'bob'),
          amount: fc.constantFrom(1, 2999, 3000, 4001, 10_000),
          day: fc.constantFrom('2026-11-23', '2026-11-24'),
          again: fc.boolean(),
        }),
        { minLength: 1, maxLength: 20 },
      )
      await fc.assert(
        fc.asyncProperty(
          operations,
          fc.array(fc.integer({ min: 1, max: 8 }), { minLength: 1 }),
          async (sequence, cuts) => {
            const messages = sequence.flatMap(({ user, amount, day, again }, index) => {
              const message = requested(`op-${index}`, {
                user,
                input: input(amount),
                createdAt: `${day}T12:00:00.000Z`,
              })
              return again ? [message, message] : [message]
            })
            const whole = await member(newStore())
            await whole.deliver(messages)
            const cut = await member(newStore())
            for (let at = 0, turn = 0; at < messages.length; turn++) {
              const size = cuts[turn % cuts.length] ?? 1
              await cut.deliver(messages.slice(at, at + size))
              at += size
            }
            const distinct = (published: typeof whole.published) =>
              new Map(
                published.map((message) => [String(message.headers.find(([name]) => name === 'ce_id')?.[1]), message]),
              )
            expect(distinct(cut.published)).toEqual(distinct(whole.published))
            for (const user of ['ana', 'bob'])
              for (const day of ['2026-11-23', '2026-11-24'])
                expect((await cut.results.used([allowance(user, day)]))[0]).toBeLessThanOrEqual(10_000)
          },
        ),
        { numRuns: runs },
      )
    })

    test('holds while two members handle the same requests, and both give the same replies', async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 2 }), async (cuts) => {
          const store = newStore()
          const messages = Array.from({ length: 30 }, (_, index) =>
            requested(`op-${index}`, { user: index % 3 ? 'ana' : 'bob', input: input(900 + index) }),
          )
          const members = [
            await member(store),
            await member(store, { deps: { ...systemDeps, now: () => NOON_MS + 2000 } }),
          ]
          await Promise.all(
            members.map(async ({ deliver }, which) => {
              for (let at = 0, turn = which; at < messages.length; turn++) {
                const size = cuts[turn % cuts.length] ?? 1
                await deliver(messages.slice(at, at + size))
                at += size
              }
            }),
          )
          const [one, other] = members.map(({ published }) => published)
          expect(one).toHaveLength(messages.length)
          expect(other).toEqual(one)
          const counted = await members[0]?.results.used(['ana', 'bob'].map((user) => allowance(user)))
          expect(Math.max(...(counted ?? []))).toBeLessThanOrEqual(10_000)
        }),
        { numRuns: runs },
      )
    })

    test('holds if another member stores a result between the read and the append', async () => {
      const store = newStore()
      const other = await member(store)
      const batch = [requested('a', { input: input(6000) }), requested('b', { input: input(6000) })]
      const mine = store.open().results
      let overtaken = false
      const results: Results = {
        ...mine,
        async append(appended) {
          if (!overtaken) {
            overtaken = true
            await other.deliver(batch.slice(0, 1))
          }
          return mine.append(appended)
        },
      }
      const { deliver, published, replies } = await member(store, {
        results,
        deps: { ...systemDeps, now: () => NOON_MS + 9000 },
      })
      await deliver(batch)
      expect(outcomes(replies())).toEqual(['a succeeded', 'b limit-exceeded'])
      expect(published[0]).toEqual(other.published[0])
    })
  })

  describe('an operation in steps', () => {
    const inSteps = (id: string, n = 1, more = {}) =>
      requested(id, { type: stepped.type, input: stepped.input(n), ...more })
    const told = (
      type: 'cancel-requested' | 'abandoned',
      operation: string,
      of: OperationType = stepped.type,
      user = 'ana',
    ) =>
      encode({
        id: `${operation}.${type}`,
        type: `posta.operation.${type}` as const,
        time: NOON,
        subject: operation,
        data: { user, operation, operationType: of, by: 'olga', deadLetter: 'd1' },
      })
    const approve = (operation: string, more: object = {}) =>
      encode({
        id: `${operation}.signal.approve`,
        type: 'posta.operation.signalled',
        time: NOON,
        subject: operation,
        data: {
          ...{ user: 'ana', operation, operationType: stepped.type, by: 'olga', signal: 'approve' },
          payload: { approved: true },
          ...more,
        },
      })

    /** A member whose runner keeps what it is asked to make sure of. */
    async function steppedMember(store = newStore(), more: Partial<RequestsOptions> = {}) {
      const admitted: NewRun[] = []
      const { runs } = store.open()
      const runner = { admit: async (asked: readonly NewRun[]) => void admitted.push(...asked), wake() {} }
      return { ...(await member(store, { runner, runs, ...more })), admitted, runs }
    }

    test('is decided, counted and handed to a run before the offset moves; there is no reply yet', async () => {
      const { deliver, replies, results, admitted, committed } = await steppedMember()
      await deliver([inSteps('a', 6000), inSteps('b', 6000), requested('c')])
      expect(outcomes(replies())).toEqual(['b limit-exceeded', 'c succeeded'])
      expect(await results.get('a')).toMatchObject({
        status: 'running',
        version: 1,
        decided: { n: 6000 },
        counts: { limit: 'test', period: '2026-11-23', amount: 6000 },
      })
      expect(admitted).toMatchObject([
        {
          id: 'a',
          user: 'ana',
          type: stepped.type,
          version: 1,
          facts: stepped.facts,
          position: { partition: 0, offset: 0 },
        },
      ])
      expect(committed()).toBe(3)
    })

    test('that comes again has its run made sure of again, from what was decided then, and is not decided anew', async () => {
      const store = newStore()
      const first = await steppedMember(store)
      await first.deliver([inSteps('a')])
      const later = await steppedMember(store, { bounds: new Map([['test', 1]]) })
      await later.deliver([inSteps('a')])
      expect(later.admitted).toEqual(first.admitted)
      expect(later.replies()).toEqual([])
      expect(await later.results.used([allowance('ana')])).toEqual([1])
    })

    test('has no run where it could not be stored that it goes on', async () => {
      const store = newStore()
      const { results } = store.open()
      let attempts = 0
      const { deliver, losePartition, admitted } = await steppedMember(store, {
        results: {
          ...results,
          append() {
            attempts += 1
            return Promise.reject(new Error('Down.'))
          },
        },
      })
      const never = deliver([inSteps('a')])
      await eventually(() => attempts > 1)
      losePartition()
      await expect(never).rejects.toThrow()
      expect(admitted).toEqual([])
      expect((await results.find(['a'])).size).toBe(0)
    })

    test('is told what comes for it before the offset moves, whether it exists or not, once each', async () => {
      const { deliver, runs, committed } = await steppedMember()
      await deliver([
        told('cancel-requested', 'x'),
        approve('x'),
        told('cancel-requested', 'x'),
        told('abandoned', 'x'),
      ])
      expect((await runs.inputs(['x'])).map(({ name, by }) => `${name} ${by}`).toSorted()).toEqual([
        'abandon:d1 olga',
        'cancel olga',
        'signal:approve olga',
      ])
      expect(committed()).toBe(4)
    })

    test('that is cancelled before it is decided fails as cancelled, counts nothing and has no run', async () => {
      const { deliver, replies, results, admitted } = await steppedMember()
      await deliver([inSteps('a'), told('cancel-requested', 'a')])
      await deliver([requested('b'), told('cancel-requested', 'b', type)])
      expect(outcomes(replies())).toEqual(['a cancelled', 'b cancelled'])
      expect(admitted).toEqual([])
      expect(await results.used([allowance('ana')])).toEqual([0])
    })

    test('whose cancel comes before its request fails as cancelled, and has no run', async () => {
      const { deliver, replies, admitted } = await steppedMember()
      await deliver([told('cancel-requested', 'a')])
      await deliver([inSteps('a'), inSteps('b')])
      expect(outcomes(replies())).toEqual(['a cancelled'])
      expect(admitted).toMatchObject([{ id: 'b' }])
    })

    test("goes on, and is not answered, where a request in another user's name is a dead letter", async () => {
      const { deliver, replies, published, results } = await steppedMember()
      await deliver([inSteps('a')])
      await deliver([inSteps('a', 1, { user: 'bob' })])
      expect(published.filter(({ topic }) => topic === topics.deadLetters)).toHaveLength(1)
      expect(replies()).toEqual([])
      expect(await results.get('a')).toMatchObject({ user: 'ana', status: 'running' })
    })

    test("is not cancelled in another user's name", async () => {
      const { deliver, replies, admitted } = await steppedMember()
      await deliver([
        inSteps('a'),
        requested('b'),
        told('cancel-requested', 'a', stepped.type, 'bob'),
        told('cancel-requested', 'b', type, 'bob'),
      ])
      expect(admitted).toMatchObject([{ id: 'a' }])
      expect(outcomes(replies())).toEqual(['b succeeded'])
    })

    test('wakes the runner with what it is told, and with nothing else; an operation without steps has nothing to be told', async () => {
      let wakes = 0
      const { deliver, runs } = await steppedMember(newStore(), { runner: { async admit() {}, wake: () => wakes++ } })
      await deliver([requested('b'), told('cancel-requested', 'b', type), inSteps('a')])
      expect(await runs.inputs(['b'])).toEqual([])
      expect(wakes).toBe(0)
      await deliver([approve('a')])
      expect(await runs.inputs(['a'])).toMatchObject([
        {
          run: 'a',
          user: 'ana',
          name: 'signal:approve',
          by: 'olga',
          payload: { approved: true },
          atMs: NOON_MS + 1000,
        },
      ])
      expect(wakes).toBe(1)
    })

    test('is not changed by a cancel that comes after its end', async () => {
      const { deliver, replies, results } = await steppedMember()
      await deliver([requested('a')])
      await deliver([told('cancel-requested', 'a', type)])
      expect(outcomes(replies())).toEqual(['a succeeded'])
      expect((await results.get('a'))?.status).toBe('succeeded')
    })

    test.each([
      ['of an unknown name', { signal: 'dance' }],
      ['of a name that every object has', { signal: 'constructor' }],
      ['of a wrong shape', { payload: { approved: 'yes' } }],
      ['with an unknown member', { payload: { approved: true, more: 1 } }],
      ['that its owner gives though an operator must', { by: 'ana' }],
    ])('takes no answer %s, whoever wrote it: it is a dead letter', async (_, more) => {
      const { deliver, published, runs } = await steppedMember()
      await deliver([approve('a', more)])
      expect(published.filter(({ topic }) => topic === topics.deadLetters)).toHaveLength(1)
      expect(await runs.inputs(['a'])).toEqual([])
    })

    test('that is redriven while it runs tells its run which dead letter that was of', async () => {
      const { deliver, runs } = await steppedMember()
      await deliver([inSteps('a')])
      await deliver([inSteps('a', 1, { redrive: 'd1.redriven' })])
      expect((await runs.inputs(['a'])).map(({ name }) => name)).toEqual(['redrive:d1.redriven'])
    })
  })

  describe('an operation that cannot be performed', () => {
    const failing = (fails: (n: number) => boolean) =>
      countingPerformers((asked) => {
        if (fails(sample.numberIn(asked.input))) throw new Error('Not today.')
        return decideSample(asked)
      })

    test("is tried again; its user's later operations wait for it, and those of others do not", async () => {
      let attempts = 0
      const { deliver, replies, committed } = await member(newStore(), {
        performers: failing((n) => n === 13 && ++attempts < 3),
      })
      await deliver([requested('a', { input: input(13) }), requested('b'), requested('c', { user: 'bob' })])
      expect(outcomes(replies())).toEqual(['c succeeded'])
      expect(committed()).toBe(0)
      await eventually(() => committed() === 3)
      expect(outcomes(replies())).toEqual(['c succeeded', 'a succeeded', 'b succeeded'])
    })

    test('is dead-lettered in the end and fails, through a stored result; the later ones are performed', async () => {
      const { deliver, replies, results, published, committed } = await member(newStore(), {
        performers: failing((n) => n === 13),
      })
      await deliver([requested('a', { input: input(13) }), requested('b')])
      await eventually(() => committed() === 2)
      expect(outcomes(replies())).toEqual(['a dead-lettered', 'b succeeded'])
      const stored = await results.get('a')
      expect(stored).toMatchObject({ status: 'failed', error: { code: 'dead-lettered' }, input: input(13) })
      const reason = published
        .find(({ topic }) => topic === topics.deadLetters)
        ?.headers.find(([name]) => name === 'posta-reason')
      expect(String(reason?.[1])).toContain(`Performing ${type} failed: Not today.`)
      // The reason is for operators only.
      expect(JSON.stringify(stored)).not.toContain('Not today')
    })

    test.each([
      ['does not fit its contract', {}],
      ['fits no message', { ...sample.output(), [sample.graphql.output]: '1'.repeat(300_000) }],
    ])('is also one whose output %s', async (_, output) => {
      const { deliver, replies, committed } = await member(newStore(), {
        performers: countingPerformers((asked) => (asked.user === 'ana' ? { output } : decideSample(asked))),
      })
      await deliver([requested('a'), requested('b', { user: 'bob' })])
      await eventually(() => committed() === 2)
      expect(outcomes(replies())).toEqual(['b succeeded', 'a dead-lettered'])
    })

    test('is dead-lettered at once if its input does not fit the contract, and that input is not stored', async () => {
      const { deliver, replies, results, published, committed } = await member(newStore())
      const hostile = { ...input(1), $where: { 'a.b': [null] } }
      await deliver([requested('a', { input: hostile }), requested('b', { input: sample.wrong.input })])
      await eventually(() => committed() === 2)
      expect(outcomes(replies())).toEqual(['a dead-lettered', 'b dead-lettered'])
      expect((await results.get('a'))?.input).toBeUndefined()
      const reasons = published.flatMap(({ headers }) =>
        headers.filter(([name]) => name === 'posta-reason').map(([, text]) => String(text)),
      )
      expect(reasons[0]).toContain('#/input/$where is not a member of this object')
      expect(reasons.join()).not.toContain(JSON.stringify(sample.wrong.input))
    })

    test('still fails, as the same dead letter, if the process died after publishing it and before storing the failure', async () => {
      const store = newStore()
      const crashed = await member(store, {
        results: { ...store.open().results, append: () => Promise.reject(new Error('Killed.')) },
      })
      const hostile = requested('a', { input: sample.wrong.input })
      const never = crashed.deliver([hostile])
      await eventually(() => crashed.published.length > 0)
      crashed.losePartition()
      await expect(never).rejects.toThrow()
      expect(crashed.replies()).toEqual([])

      const { deliver, replies, published, committed } = await member(store)
      await deliver([hostile, requested('b')])
      await eventually(() => committed() === 2)
      expect(outcomes(replies())).toEqual(['a dead-lettered', 'b succeeded'])
      const letters = [...crashed.published, ...published].filter(({ topic }) => topic === topics.deadLetters)
      expect(letters.map(({ value }) => value)).toContainEqual(hostile.value)
      expect(new Set(letters.map(({ key }) => key)).size).toBe(1)
    })

    test('is answered before the later ones of its user, even if the process dies before it is dead-lettered', async () => {
      const store = newStore()
      const { results, deliver, losePartition, failNextPublishes } = await member(store)
      const batch = [
        requested('a', { input: sample.wrong.input }),
        requested('b'),
        { ...requested('c', { user: 'bob' }), key: 'bob' },
      ]
      failNextPublishes(Number.POSITIVE_INFINITY)
      const never = deliver(batch)
      await eventually(async () => (await results.find(['c'])).size > 0)
      losePartition()
      await expect(never).rejects.toThrow()
      expect([...(await results.find(['a', 'b'])).keys()]).toEqual([])

      const next = await member(store)
      await next.deliver(batch)
      await eventually(() => next.committed() === 3)
      expect(outcomes(next.replies())).toEqual(['c succeeded', 'a dead-lettered', 'b succeeded'])
    })

    test('is answered with its success if one is stored', async () => {
      const store = newStore()
      await (await member(store)).deliver([requested('a')])
      const { deliver, replies } = await member(store)
      await deliver([requested('a', { input: sample.wrong.input })])
      expect(outcomes(replies())).toEqual(['a succeeded'])
    })

    test.each([
      ['its key is not its user', { ...requested('a'), key: 'bob' }],
      ['an id has characters that stores may not tell apart', requested('a\u0000b')],
      ['an id is too long to become part of another', requested('a', { redrive: 'r'.repeat(200) })],
      ['its createdAt is not a time that exists', requested('a', { createdAt: '2026-11-23T24:61:00Z' })],
    ])('has a dead letter but no result if %s', async (_, message) => {
      const { deliver, published, results } = await member(newStore())
      await deliver([message, requested('z')])
      expect(published.map(({ topic }) => topic).sort()).toEqual([topics.deadLetters, topics.events, topics.results])
      expect((await results.page({ limit: 10 })).map(({ id }) => id)).toEqual(['z'])
    })
  })

  describe('a redrive', () => {
    /** Dead-letters operation `a` of `n`: its performer was broken. */
    async function deadLetteredIn(store: Fresh<Store>, n: number) {
      const broken = await member(store, {
        performers: countingPerformers(() => {
          throw new Error('Broken.')
        }),
      })
      await broken.deliver([requested('a', { input: input(n) })])
      await eventually(() => broken.committed() === 1)
      expect(outcomes(broken.replies())).toEqual(['a dead-lettered'])
    }

    test('performs a dead-lettered operation once, and gets the same reply each time', async () => {
      const store = newStore()
      await deadLetteredIn(store, 6000)
      const { deliver, published, replies, results } = await member(store)
      const redriven = requested('a', { input: input(6000), redrive: 'r1' })
      await deliver([redriven, requested('b', { input: input(6000) })])
      expect(outcomes(replies())).toEqual(['a succeeded', 'b limit-exceeded'])
      expect(replies()[0]).toMatchObject({ id: 'a.r1', redrive: 'r1', subject: 'a' })
      expect(await results.get('a')).toMatchObject({
        status: 'succeeded',
        redrive: 'r1',
        counts: { amount: 6000 },
      })
      await deliver([redriven])
      expect(published.at(-1)).toEqual(published[0])
      await deliver([requested('a', { input: input(6000), redrive: 'r2' })])
      expect(replies().at(-1)).toMatchObject({ id: 'a.r2', type: 'posta.operation.succeeded' })
      expect(await results.get('a')).toMatchObject({ redrive: 'r1' })
    })

    test('is final: if the first request comes again it gets the reply of the redrive', async () => {
      const store = newStore()
      await deadLetteredIn(store, 1)
      const { deliver, replies } = await member(store)
      await deliver([requested('a', { input: input(1), redrive: 'r1' })])
      await deliver([requested('a', { input: input(1) })])
      expect(replies()[1]).toEqual(replies()[0] ?? expect.anything())
      expect(replies()[1]).toMatchObject({ id: 'a.r1', type: 'posta.operation.succeeded' })
    })

    test('counts in the order of the batch', async () => {
      const store = newStore()
      await deadLetteredIn(store, 6000)
      const { deliver, replies } = await member(store)
      await deliver([
        requested('b', { input: input(3000) }),
        requested('a', { input: input(6000), redrive: 'r1' }),
        requested('c', { input: input(2000) }),
        requested('d', { input: input(1000) }),
        requested('a', { input: input(6000), redrive: 'r2' }),
      ])
      expect(outcomes(replies())).toEqual([
        'b succeeded',
        'a succeeded',
        'c limit-exceeded',
        'd succeeded',
        'a succeeded',
      ])
      expect(replies().map(({ id }) => id)).toEqual(['b.result', 'a.r1', 'c.result', 'd.result', 'a.r2'])
    })

    test('that fails leaves the stored failure as it is, and is answered with it', async () => {
      const store = newStore()
      await deadLetteredIn(store, 20000)
      const { deliver, replies, results } = await member(store)
      await deliver([requested('a', { input: input(20000), redrive: 'r1' })])
      expect(outcomes(replies())).toEqual(['a dead-lettered'])
      expect(replies()[0]?.id).toBe('a.r1')
      expect(await results.get('a')).not.toHaveProperty('redrive')
    })

    test('that is dead-lettered again is answered with the stored failure', async () => {
      const store = newStore()
      await deadLetteredIn(store, 1)
      const { deliver, replies, published } = await member(store)
      await deliver([requested('a', { input: sample.wrong.input, redrive: 'r1' })])
      expect(outcomes(replies())).toEqual(['a dead-lettered'])
      expect(replies()[0]?.id).toBe('a.r1')
      expect(published.some(({ topic }) => topic === topics.deadLetters)).toBe(true)
    })

    test('of an operation that succeeded or failed otherwise performs nothing and is answered from the store', async () => {
      const { deliver, replies, results } = await member(newStore())
      await deliver([requested('a', { input: input(1) }), requested('b', { input: input(10000) })])
      await deliver([
        requested('a', { input: input(5), redrive: 'r1' }),
        requested('b', { input: input(5), redrive: 'r2' }),
      ])
      expect(outcomes(replies().slice(2))).toEqual(['a succeeded', 'b limit-exceeded'])
      expect(await results.used([allowance('ana')])).toEqual([1])
    })

    test('of an operation without a result is performed like any request', async () => {
      const { deliver, replies } = await member(newStore())
      await deliver([requested('a', { redrive: 'r1' })])
      await deliver([requested('a')])
      expect(replies().map(({ id, type }) => `${id} ${type}`)).toEqual([
        'a.r1 posta.operation.succeeded',
        'a.r1 posta.operation.succeeded',
      ])
    })

    test('of a request so old that its result may be deleted performs nothing, since that could be its second effect', async () => {
      const store = newStore()
      const first = await member(store)
      await first.deliver([requested('a')])
      const day = 86_400_000
      const late = await member(store, { deps: { ...systemDeps, now: () => NOON_MS + 399 * day + 1 } })
      await late.deliver([requested('a'), requested('b'), requested('c', { redrive: 'r1' })])
      await late.deliver([requested('b', { redrive: 'r2' })])
      expect(outcomes(late.replies()).sort()).toEqual([
        'a succeeded',
        'b dead-lettered',
        'b dead-lettered',
        'c dead-lettered',
      ])
      const justInTime = await member(newStore(), { deps: { ...systemDeps, now: () => NOON_MS + 399 * day } })
      await justInTime.deliver([requested('b')])
      expect(outcomes(justInTime.replies())).toEqual(['b succeeded'])
    })

    test("in another user's name changes nothing", async () => {
      const store = newStore()
      await deadLetteredIn(store, 1)
      const { deliver, replies } = await member(store)
      await deliver([requested('a', { user: 'eve', redrive: 'r1' })])
      expect(replies()[0]).toMatchObject({ type: 'posta.operation.failed', data: { user: 'ana' } })
    })
  })
})
