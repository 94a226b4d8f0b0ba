import { afterEach, describe, expect, test } from 'bun:test'
import { deadLetterId, redriveId } from '@posta/common/messages/dead-letter.ts'
import { type AnyEnvelope, decode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { topics } from '@posta/common/messages/topics.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { createFakeBroker } from '@posta/common/testing/fake-broker.ts'
import { type Fresh, freshDatabase, freshFile } from '@posta/common/testing/fresh-store.ts'
import { isLong } from '@posta/common/testing/long.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { Registry } from 'prom-client'
import { type AnyPerformer, later } from '../performers/performer.ts'
import { type Performers, performers } from '../performers/performers.ts'
import type { Result } from '../results/results.ts'
import { openEmbedded } from '../store/embedded.ts'
import { openMongo } from '../store/mongo.ts'
import type { Store } from '../store/store.ts'
import { contracts, delivered, NOON } from '../testing/requests.ts'
import { deadLetterOf } from './run-messages.ts'
import { createRunner, type RunnerOptions } from './runner.ts'
import {
  abandonInput,
  CANCEL,
  NEVER_MS,
  type NewRun,
  type RunInput,
  type RunRecord,
  redriveInput,
  signalInput,
} from './runs.ts'

type Code = NonNullable<AnyPerformer['run']>

const cleanups: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const output = sample.output()
const succeeds = async (_ran: number) => ({ output })
const refused = { failure: { code: 'limit-exceeded', message: 'No.' } } as const
const counts = { limit: 'test', period: '2026-11-23', amount: 100 }
const allowance = { user: 'ana', limit: 'test', period: '2026-11-23' }
const nowMs = Date.now()
/** Its clock runs ten times as fast, so that it soon finds that a holder is silent. */
const impatient = { ...systemDeps, monotonicMs: () => 10 * systemDeps.monotonicMs() }

function newRun(id: string, more: Partial<NewRun> = {}): NewRun {
  const position = { partition: 0, offset: Number(id.replace(/\D/g, '')) || 0, timestampMs: nowMs }
  return {
    id,
    user: 'ana',
    type: sample.type,
    version: 1,
    input: sample.input(),
    facts: sample.facts,
    createdAt: new Date(nowMs).toISOString(),
    decidedAtMs: nowMs,
    decided: null,
    position,
    ...more,
  }
}

function running({ id, user, type, input, facts, createdAt, version }: NewRun): Result {
  return { id, user, type, input, facts, createdAt, version, status: 'running', decided: null, decidedAt: NOON, counts }
}

function withCode(run: Code, more: Partial<AnyPerformer> = {}): Performers {
  return { ...performers, [sample.type]: Object.assign({ ...performers[sample.type], run }, more) }
}

const heldByTheDead = {
  state: 'running',
  holder: 'dead',
  epoch: 1,
  dueAtMs: 0,
  attempts: 0,
  failures: 0,
  published: 0,
} as const

const input = (run: string, name: string, more: Partial<RunInput> = {}): RunInput => ({
  run,
  user: 'ana',
  name,
  by: 'ana',
  atMs: Date.now(),
  ...more,
})

/** A processor's runner on a store that others share, with a broker of its own. */
async function processor(here: Fresh<Store>, run: Code, more: Partial<RunnerOptions> = {}) {
  const store = here.open()
  const { broker, published, failNextPublishes } = createFakeBroker()
  const runner = createRunner({
    contracts,
    runs: store.runs,
    results: store.results,
    broker,
    performers: withCode(run),
    settings: new Map(),
    log: createLog('test', 'silent'),
    metrics: new Registry(),
    deps: systemDeps,
    ...more,
  })
  await runner.start?.()
  let closed: Promise<void> | undefined
  const close = (graceMs = 1000) => {
    closed ??= runner.close?.(graceMs) ?? Promise.resolve()
    return closed
  }
  cleanups.push(() => close())
  return {
    ...store,
    runner,
    published,
    failNextPublishes,
    close,
    /** As after `decide` has said to go on. */
    async begin(...runs: readonly NewRun[]) {
      await store.results.append(runs.map(running))
      await runner.admit(runs)
    },
    async tell(...inputs: readonly RunInput[]) {
      await store.runs.addInputs(inputs)
      runner.wake()
    },
    stateOf: async (id: string) => (await store.runs.get(id))?.head.state,
    untilState: (id: string, state: string) => eventually(async () => (await store.runs.get(id))?.head.state === state),
  }
}

function read(message: Outgoing): AnyEnvelope {
  const decoded = decode(delivered(message))
  if ('unreadable' in decoded) throw new Error(decoded.unreadable)
  return decoded.envelope
}

const told = (published: readonly Outgoing[]) =>
  published
    .filter(({ topic }) => topic === topics.results)
    .map(read)
    .map(({ id, data }) => ('step' in data ? `${id} ${data.status} ${data.step}` : id))

const kinds = (records: readonly RunRecord[]) =>
  records.map((record) => ('step' in record ? `${record.kind} ${record.step}` : record.kind))

const threeSteps: Code = async ({ step }) => {
  for (const name of ['a', 'b', 'c']) await step(name, async () => name)
  return { output }
}

const mongoUrl = process.env.TEST_MONGO_URL
const stores = [{ on: 'the embedded store', fresh: () => freshFile<Store>(openEmbedded) }]
if (mongoUrl) stores.push({ on: 'the MongoDB store', fresh: () => freshDatabase<Store>(mongoUrl, openMongo) })

describe.each(stores)('on $on', ({ fresh }) => {
  function newStore(): Fresh<Store> {
    const store = fresh()
    cleanups.push(() => store.dispose())
    return store
  }

  test('a run is done at once; its outcome becomes the result, and progress is told before the reply', async () => {
    const { begin, untilState, results, published, runs } = await processor(newStore(), threeSteps)
    await begin(newRun('op-1'))
    await untilState('op-1', 'ended')
    expect(kinds(await runs.history('op-1'))).toEqual(['done a', 'done b', 'done c', 'ended'])
    const ended = (await runs.history('op-1')).at(-1)
    const result = await results.get('op-1')
    expect(result?.facts).toEqual(sample.facts)
    expect(result).toMatchObject({
      status: 'succeeded',
      output,
      counts,
      completedAt: new Date(ended?.atMs ?? 0).toISOString(),
    })
    expect(told(published)).toEqual([
      'op-1.progress.0 done a',
      'op-1.progress.1 done b',
      'op-1.progress.2 done c',
      'op-1.result',
    ])
  })

  test('a run that fails gives its limit back', async () => {
    const { begin, untilState, results } = await processor(newStore(), async () => refused)
    await begin(newRun('op-1'))
    expect(await results.used([allowance])).toEqual([100])
    await untilState('op-1', 'ended')
    expect(await results.used([allowance])).toEqual([0])
    expect(await results.get('op-1')).toMatchObject({ status: 'failed', error: refused.failure })
  })

  test('a request that comes again while its run is under way, or after it, begins nothing anew', async () => {
    let calls = 0
    const gate = Promise.withResolvers<void>()
    const { begin, runner, untilState, published } = await processor(newStore(), async ({ step }) => {
      await step('a', async () => {
        calls += 1
        await gate.promise
      })
      return { output }
    })
    await begin(newRun('op-1'))
    await eventually(() => calls === 1)
    await runner.admit([newRun('op-1')])
    gate.resolve()
    await untilState('op-1', 'ended')
    await runner.admit([newRun('op-1')])
    expect(calls).toBe(1)
    expect(told(published).filter((id) => id.includes('progress'))).toHaveLength(1)
  })

  test('a run that waits is held by nobody, and goes on by its time', async () => {
    let polls = 0
    const { begin, runs, untilState } = await processor(newStore(), async ({ step, sleep }) => {
      await sleep('pause', 20)
      await step('poll', async () => (++polls < 3 ? later(20) : 'done'))
      return { output }
    })
    await begin(newRun('op-1'))
    await untilState('op-1', 'ended')
    expect(kinds(await runs.history('op-1'))).toEqual(['waiting pause', 'done pause', 'done poll', 'ended'])
    expect((await runs.get('op-1'))?.head.holder).toBeUndefined()
  })

  test('an answer wakes the run that waits for it, whichever processor it reaches', async () => {
    const store = newStore()
    const asks: Code = async ({ signal }) => ((await signal('approve'))?.approved === true ? { output } : refused)
    const first = await processor(store, asks)
    const second = await processor(store, asks)
    await first.begin(newRun('op-1'), newRun('op-2'))
    await first.untilState('op-1', 'waiting')
    await first.untilState('op-2', 'waiting')
    expect((await first.runs.get('op-1'))?.head).toMatchObject({ step: 'approve', forSignal: true })
    await second.tell(input('op-1', signalInput('approve'), { payload: { approved: true }, by: 'olga' }))
    await first.runs.addInputs([input('op-2', signalInput('approve'), { payload: { approved: false }, by: 'olga' })])
    await first.untilState('op-1', 'ended')
    await first.untilState('op-2', 'ended')
    expect((await first.results.get('op-1'))?.status).toBe('succeeded')
    expect((await first.results.get('op-2'))?.status).toBe('failed')
  })

  test('a cancel that came before its run undoes nothing and does nothing; one of another user is not heard', async () => {
    const { begin, tell, untilState, results } = await processor(newStore(), threeSteps)
    await tell(input('op-1', CANCEL), input('op-2', CANCEL, { user: 'bob' }))
    await begin(newRun('op-1'), newRun('op-2'))
    await untilState('op-1', 'ended')
    await untilState('op-2', 'ended')
    expect(await results.get('op-1')).toMatchObject({ status: 'failed', error: { code: 'cancelled' } })
    expect((await results.get('op-2'))?.status).toBe('succeeded')
  })

  test('a cancel in the middle of a step is obeyed after it', async () => {
    const [gate, looked] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    let undone = 0
    const store = newStore()
    const stored = store.open().runs
    const code: Code = async ({ step }) => {
      await step('reserve', () => gate.promise, { undo: async () => void undone++ })
      await step('pay', async () => {})
      return { output }
    }
    const { begin, tell, untilState, runs } = await processor(store, code, {
      runs: {
        ...stored,
        async unnoticed(...query) {
          const found = await stored.unnoticed(...query)
          if (found.length > 0) setImmediate(looked.resolve)
          return found
        },
      },
    })
    await begin(newRun('op-1'))
    await eventually(async () => (await runs.history('op-1')).length === 1)
    await tell(input('op-1', CANCEL))
    await looked.promise
    gate.resolve()
    await untilState('op-1', 'ended')
    expect(undone).toBe(1)
    expect(kinds(await runs.history('op-1')).slice(-3)).toEqual(['failing', 'undone reserve', 'ended'])
  })

  test('a stuck run is a dead letter each time, goes on when redriven, and keeps its limit until it is discarded', async () => {
    let broken = true
    const { begin, tell, untilState, stateOf, published, results, runs } = await processor(
      newStore(),
      async ({ step }) => {
        await step(
          'send',
          async () => {
            if (broken) throw new Error('Out of order.')
          },
          { attempts: 1 },
        )
        return { output }
      },
    )
    const [one, two] = [newRun('op-1'), newRun('op-2')]
    await begin(one, two)
    await untilState('op-1', 'stuck')
    await untilState('op-2', 'stuck')
    const letters = () => published.filter(({ topic }) => topic === topics.deadLetters).map(({ key }) => key)
    expect(letters().toSorted()).toEqual([deadLetterOf(one, { n: 0 }), deadLetterOf(two, { n: 0 })].toSorted())
    expect(deadLetterOf(one, { n: 0 })).toBe(deadLetterId({ ...one.position, topic: topics.requests }, 0))
    expect(await results.used([allowance])).toEqual([200])

    await tell(input('op-1', redriveInput(redriveId(deadLetterOf(one, { n: 0 })))))
    await eventually(() => letters().length === 3)
    await untilState('op-1', 'stuck')
    expect(letters().at(-1)).toBe(deadLetterOf(one, { n: 2 }))
    broken = false
    await tell(input('op-1', redriveInput(redriveId(deadLetterOf(one, { n: 2 })))))
    await untilState('op-1', 'ended')
    expect(kinds(await runs.history('op-1'))).toEqual(['stuck', 'resumed', 'stuck', 'resumed', 'done send', 'ended'])

    expect(await stateOf('op-2')).toBe('stuck')
    await tell(input('op-2', abandonInput(deadLetterOf(two, { n: 0 }))))
    await untilState('op-2', 'ended')
    expect(await results.get('op-2')).toMatchObject({ status: 'failed', error: { code: 'dead-lettered' } })
    expect(await results.used([allowance])).toEqual([100])
  })

  test('while the broker is away a run does its steps, and ends once all is told, in order', async () => {
    const { begin, untilState, published, failNextPublishes, runs, stateOf } = await processor(newStore(), threeSteps)
    failNextPublishes(3)
    await begin(newRun('op-1'))
    await eventually(async () => (await runs.history('op-1')).length === 4)
    expect(await stateOf('op-1')).toBe('running')
    await untilState('op-1', 'ended')
    expect(new Set(told(published)).size).toBe(4)
    expect(told(published).at(-1)).toBe('op-1.result')
  })

  test('a processor that closes leaves its runs to others at once, who go on with the same key', async () => {
    const store = newStore()
    const keys: string[] = []
    const first = await processor(store, async ({ step }) => {
      await step('slow', ({ idempotencyKey, signal }) => {
        keys.push(idempotencyKey)
        return new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
      })
      return { output }
    })
    await first.begin(newRun('op-1'))
    await eventually(() => keys.length === 1)
    await first.close(20)
    expect(await first.stateOf('op-1')).toBe('ready')
    const second = await processor(store, async ({ step }) => {
      await step('slow', async ({ idempotencyKey }) => void keys.push(idempotencyKey))
      return { output }
    })
    await second.untilState('op-1', 'ended')
    expect(keys).toEqual(['op-1/slow', 'op-1/slow'])
  })

  test.skipIf(!isLong)(
    'the runs of a processor that died are taken over, and a run that it still holds is fenced off',
    async () => {
      const store = newStore()
      const gate = Promise.withResolvers<void>()
      let seconds = 0
      const code = (frozen: boolean): Code => {
        return async ({ step }) => {
          await step('a', async () => 'a')
          await step('b', async () => {
            if (frozen) await gate.promise
            return frozen ? 'of the frozen one' : 'of the other'
          })
          await step('c', async () => void seconds++)
          return { output }
        }
      }
      // A processor that is frozen raises no beat: its writes of it are lost here.
      const first = await processor(store, code(true), {
        runs: { ...store.open().runs, beat: async () => {} },
      })
      await first.begin(newRun('op-1'))
      await eventually(async () => (await first.runs.history('op-1')).length === 1)
      const second = await processor(store, code(false), { deps: impatient })
      await second.untilState('op-1', 'ended')
      gate.resolve()
      await eventually(async () => seconds === 1)
      await first.close()
      expect(kinds(await second.runs.history('op-1'))).toEqual(['done a', 'done b', 'done c', 'ended'])
      expect(await second.runs.history('op-1')).toMatchObject([{}, { result: 'of the other' }, {}, {}])
      expect(seconds).toBe(1)
    },
  )

  test('a processor goes on only with versions that it has', async () => {
    const store = newStore()
    const old = await processor(store, threeSteps)
    await old.begin(newRun('op-2', { version: 2 }))
    expect(await old.stateOf('op-2')).toBe('ready')
    const ran: number[] = []
    const fresh = await processor(store, threeSteps, {
      performers: withCode(async () => succeeds(ran.push(2)), {
        version: 2,
        earlier: { 1: async () => succeeds(ran.push(1)) },
      }),
    })
    await fresh.untilState('op-2', 'ended')
    await fresh.begin(newRun('op-1', { version: 1 }))
    await fresh.untilState('op-1', 'ended')
    expect(ran).toEqual([2, 1])
  })

  test('new runs of a paused type wait, and can be cancelled; those that have begun go on', async () => {
    const { begin, tell, untilState, stateOf, runs, runner } = await processor(newStore(), async ({ sleep }) => {
      await sleep('pause', 300)
      return { output }
    })
    await begin(newRun('op-1'))
    await untilState('op-1', 'waiting')
    await runs.pause(sample.type, true)
    await untilState('op-1', 'ended')
    await begin(newRun('op-2'), newRun('op-3'))
    await tell(input('op-3', CANCEL))
    await untilState('op-3', 'ended')
    expect(await stateOf('op-2')).toBe('ready')
    await runs.pause(sample.type, false)
    runner.wake()
    await untilState('op-2', 'ended')
  })

  test('one user takes at most 16 places: the runs of others go on beside', async () => {
    const gate = Promise.withResolvers<void>()
    let most = 0
    let now = 0
    const { begin, untilState, runs } = await processor(newStore(), async ({ step, user }) => {
      await step('a', async () => {
        if (user === 'bob') return
        most = Math.max(most, ++now)
        await gate.promise
        now -= 1
      })
      return { output }
    })
    const anas = Array.from({ length: 40 }, (_, index) => newRun(`op-${index}`))
    await begin(...anas)
    await begin(newRun('op-bob', { user: 'bob' }))
    await untilState('op-bob', 'ended')
    expect(most).toBe(16)
    gate.resolve()
    for (const { id } of anas) await untilState(id, 'ended')
    expect(most).toBe(16)
    expect(await runs.holders()).toEqual([])
  })

  test.skipIf(!isLong)(
    'all runs of a dead processor are taken over, at most 16 of one user at once, and its beat is forgotten',
    async () => {
      const store = newStore()
      const { runs, results } = store.open()
      const all = Array.from({ length: 20 }, (_, index) => newRun(`op-${index}`))
      await results.append(all.map(running))
      await runs.create(all.map((run) => ({ ...run, head: heldByTheDead })))
      await runs.beat('dead', 7)
      const forgotten: string[] = []
      const gate = Promise.withResolvers<void>()
      let most = 0
      let now = 0
      const { untilState } = await processor(
        store,
        async ({ step }) => {
          await step('a', async () => {
            most = Math.max(most, ++now)
            await gate.promise
            now -= 1
          })
          return { output }
        },
        {
          deps: impatient,
          runs: {
            ...runs,
            async forget(holder) {
              forgotten.push(holder)
              await runs.forget(holder)
            },
          },
        },
      )
      await eventually(() => most === 16)
      gate.resolve()
      for (const { id } of all) await untilState(id, 'ended')
      expect(most).toBe(16)
      await eventually(() => forgotten.includes('dead'))
    },
  )

  test('a run that was stored as its own, though the store answered with an error, is found again', async () => {
    const store = newStore()
    const { runs } = store.open()
    let rejects = true
    const { begin, untilState } = await processor(store, threeSteps, {
      runs: {
        ...runs,
        async create(given) {
          const created = await runs.create(given)
          if (rejects) throw new Error('The connection broke.')
          return created
        },
      },
    })
    await expect(begin(newRun('op-1'))).rejects.toThrow('The connection broke.')
    rejects = false
    await untilState('op-1', 'ended')
  })

  test('inputs of runs that it cannot go on with stay for those who can', async () => {
    const store = newStore()
    const { runs, runner } = await processor(store, threeSteps)
    await runs.create([
      {
        ...newRun('op-1', { version: 9 }),
        head: { state: 'waiting', epoch: 1, dueAtMs: Number.MAX_SAFE_INTEGER, attempts: 0, failures: 0, published: 0 },
      },
    ])
    await runs.addInputs([input('op-1', CANCEL), input('op-2', CANCEL)])
    runner.wake()
    // That of an operation without a run is noticed: whoever creates one reads it then.
    await eventually(async () => (await runs.unnoticed(10)).length === 1)
    expect((await runs.unnoticed(10)).map(({ run }) => run)).toEqual(['op-1'])
    expect((await runs.get('op-1'))?.head.state).toBe('waiting')
  })

  test('an answer is taken, however many older inputs have to wait', async () => {
    const store = newStore()
    const { runs, runner, begin, untilState } = await processor(store, async ({ signal }) => {
      await signal('approve')
      return { output }
    })
    const head = { state: 'waiting', epoch: 1, dueAtMs: NEVER_MS, attempts: 0, failures: 0, published: 0 } as const
    const waiting = Array.from({ length: 1200 }, (_, n) => ({ ...newRun(`op-${n}`, { version: 9 }), head }))
    await runs.create(waiting)
    await runs.addInputs(waiting.map(({ id }, atMs) => ({ ...input(id, CANCEL), atMs })))
    await begin(newRun('op-new'))
    await untilState('op-new', 'waiting')
    await runs.addInputs([{ ...input('op-new', signalInput('approve')), payload: { approved: true } }])
    runner.wake()
    await untilState('op-new', 'ended')
    await eventually(async () => (await runs.unnoticed(5000)).length === 1200)
  })

  test('a run whose place is taken by another processor is dropped, and does nothing more', async () => {
    const store = newStore()
    const gate = Promise.withResolvers<void>()
    let later = 0
    const { begin, runs, close } = await processor(store, async ({ step }) => {
      await step('a', () => gate.promise)
      await step('b', async () => void later++)
      return { output }
    })
    await begin(newRun('op-1'))
    const run = await runs.get('op-1')
    if (!run) throw new Error('There is no run.')
    const taken = await runs.take(run, 'another')
    await runs.append([{ run: 'op-1', record: { n: 0, atMs: Date.now(), kind: 'done', step: 'a' } }])
    gate.resolve()
    await close()
    expect(taken?.head).toMatchObject({ holder: 'another', epoch: 2 })
    expect(later).toBe(0)
    expect((await runs.get('op-1'))?.head).toMatchObject({ holder: 'another', state: 'running' })
  })

  test.skipIf(!isLong)('a run that kills whoever works on it is set aside after five of them', async () => {
    const store = newStore()
    const { runs, results } = store.open()
    const run = newRun('op-1')
    await results.append([running(run)])
    let calls = 0
    const crashing: Code = async ({ step }) => {
      await step('a', async () => {
        calls += 1
        await new Promise(() => {})
      })
      return { output }
    }
    await runs.create([{ ...run, head: { ...heldByTheDead, crashes: 4, crashedAt: 0 } }])
    const { untilState } = await processor(store, crashing, { deps: impatient })
    await untilState('op-1', 'stuck')
    expect(calls).toBe(0)
    expect((await runs.get('op-1'))?.head.reason).toContain('died while they worked on it')
  })
})
