import { describe, expect, test } from 'bun:test'
import { redriveId } from '@posta/common/messages/dead-letter.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createHttp } from '@posta/common/service/external-http.ts'
import fc from 'fast-check'
import { type AnyPerformer, type Json, later } from '../performers/performer.ts'
import { NOON, NOON_MS } from '../testing/requests.ts'
import { input, newRun, runToEnd } from '../testing/run-to-end.ts'
import { readHistory } from './history.ts'
import { pass } from './pass.ts'
import { deadLetterOf } from './run-messages.ts'
import { abandonInput, LONGEST_LIFE_MS, type RunInput, type RunRecord, redriveInput, signalInput } from './runs.ts'

type Context = Parameters<NonNullable<AnyPerformer['run']>>[0]
type Code = NonNullable<AnyPerformer['run']>

/** What a fake world outside did, by idempotency key. */
function outside() {
  const calls: string[] = []
  const effects = new Map<string, number>()
  return {
    calls,
    effects,
    act: async ({ idempotencyKey, attempt }: { idempotencyKey: string; attempt: number }) => {
      calls.push(`${idempotencyKey} ${attempt}`)
      effects.set(idempotencyKey, (effects.get(idempotencyKey) ?? 0) + 1)
      return `did ${idempotencyKey}`
    },
  }
}

const kinds = (records: readonly RunRecord[]) =>
  records.map((record) => ('step' in record ? `${record.kind} ${record.step}` : record.kind))
const done = { output: { fine: true } }
const refused = { failure: { code: 'not-approved', message: 'No.' } } as const
const approve = (approved = true) => input(signalInput('approve'), { payload: { approved } })

describe('a run', () => {
  test('does its steps in order, records each result before the next, and ends with its output', async () => {
    const { act, calls } = outside()
    const { records, outcome } = await runToEnd({
      async run({ step }) {
        const first = await step('first', act)
        await step('second', act)
        return { output: { first } }
      },
    })
    expect(kinds(records)).toEqual(['done first', 'done second', 'ended'])
    expect(outcome).toEqual({ output: { first: 'did op/first' } })
    expect(calls).toEqual(['op/first 1', 'op/second 1'])
  })

  test('goes on after a crash from the last record: what is recorded is given back and not done again', async () => {
    const { act, calls } = outside()
    const code: Code = async ({ step }) => {
      const first = await step('first', act)
      const second = await step('second', act)
      return { output: { first, second } }
    }
    const whole = await runToEnd({ run: code })
    calls.length = 0
    const { outcome } = await runToEnd({ run: code }, { records: whole.records.slice(0, 1) })
    expect(outcome).toEqual(whole.outcome)
    expect(calls).toEqual(['op/second 1'])
  })

  test('tries a step that throws again, with the same key, after pauses that double, until it succeeds', async () => {
    const attempts: string[] = []
    const { records, outcome } = await runToEnd({
      async run({ step }) {
        await step('pay', async ({ idempotencyKey, attempt }) => {
          attempts.push(`${idempotencyKey} ${attempt}`)
          if (attempt < 4) throw new Error('The other side is away.')
        })
        return done
      },
    })
    expect(attempts).toEqual(['op/pay 1', 'op/pay 2', 'op/pay 3', 'op/pay 4'])
    expect(outcome).toEqual(done)
    expect(records[0]?.atMs).toBe(NOON_MS + 1000 + 2000 + 4000)
  })

  test.each([
    ['is not asked again before that', 429, '600', {}, 600_000],
    ['is not asked again before that time', 503, new Date(NOON_MS + 600_000).toUTCString(), {}, 600_000],
    ['is not left alone for longer than the longest pause', 429, '86400', { longestPauseMs: 120_000 }, 120_000],
    ['is left alone as long as other failures, where that is longer', 503, '1', { firstPauseMs: 9000 }, 9000],
    ['is asked as usual where it said no time', 429, 'soon', {}, 1000],
    ['is asked as usual where it was a time in the past', 503, new Date(NOON_MS - 1000).toUTCString(), {}, 1000],
    ['is asked as usual where no wait was meant', 500, '600', {}, 1000],
  ])('one that says when to come again %s (%d, %s)', async (_, status, retryAfter, policy, pausedMs) => {
    const answers = [
      new Response(null, { status, headers: { 'Retry-After': retryAfter } }),
      Response.json({ id: 'P1' }),
    ]
    const { preconnect } = fetch
    const { records, outcome } = await runToEnd(
      {
        async run({ step, http }) {
          const pay = () => http.post('http://127.0.0.1:1/payments', { retry: 0 }).json<Json>()
          const explained = (error: unknown) => Promise.reject(new Error('It was not paid.', { cause: error }))
          await step('pay', () => pay().catch(explained), policy)
          return done
        },
      },
      { deps: { fetch: Object.assign(async () => answers.shift() ?? Response.error(), { preconnect }) } },
    )
    expect(outcome).toEqual(done)
    expect(records[0]?.atMs).toBe(NOON_MS + pausedMs)
  })

  test('outlasts another side that is away for an hour', async () => {
    const { outcome, records } = await runToEnd({
      async run({ step }) {
        await step('pay', async ({ attempt }) => {
          if (attempt <= 12) throw new Error('Away.')
        })
        return done
      },
    })
    expect(outcome).toEqual(done)
    expect(records[0]?.atMs).toBeGreaterThanOrEqual(NOON_MS + 3_600_000)
  })

  test('counts the attempts of each step by themselves', async () => {
    const attempts: string[] = []
    const failing =
      (name: string) =>
      async ({ attempt }: { attempt: number }) => {
        attempts.push(`${name} ${attempt}`)
        if (attempt < 2) throw new Error('Away.')
      }
    const { outcome } = await runToEnd({
      async run({ step }) {
        await step('a', failing('a'), { attempts: 2 })
        await step('b', failing('b'), { attempts: 2 })
        return done
      },
    })
    expect(outcome).toEqual(done)
    expect(attempts).toEqual(['a 1', 'a 2', 'b 1', 'b 2'])
  })

  test('is given what decide said, and is stuck where that is no JSON', async () => {
    const run: Code = async ({ decided }) => ({ output: { decided } })
    const decided = { above: '1000' }
    expect((await runToEnd({ run }, { run: newRun({ decided }) })).outcome).toEqual({ output: { decided } })
    expect((await runToEnd({ run }, { run: newRun({ decided: undefined }) })).outcome).toEqual({
      output: { decided: null },
    })
    expect((await runToEnd({ run }, { run: newRun({ decided: 1n }) })).stop).toMatchObject({
      reason: 'What decide said is no JSON.',
    })
  })

  test('that has ended stays as it is, and its code is not called', async () => {
    const { records, stop } = await runToEnd({ run: async () => done })
    expect(stop).toEqual({ kind: 'ended' })
    const again = await runToEnd({ run: () => Promise.reject(new Error('It was called.')) }, { records })
    expect(again).toMatchObject({ stop: { kind: 'ended' }, records })
  })

  test('is stuck once the attempts of a step are used up, with what the last one said', async () => {
    const { stop, records } = await runToEnd({
      async run({ step }) {
        await step('pay', () => Promise.reject(new Error('Out of order.')), { attempts: 3 })
        return done
      },
    })
    // Until somebody decides, or its time is over.
    const dueAtMs = NOON_MS + LONGEST_LIFE_MS
    expect(stop).toMatchObject({ kind: 'stuck', reason: 'pay failed 3 times: Out of order.', dueAtMs })
    expect(kinds(records)).toEqual(['stuck'])
  })

  test('gives up an attempt that outlasts its time, and tells it so', async () => {
    const told: boolean[] = []
    const { outcome } = await runToEnd({
      async run({ step }) {
        await step(
          'slow',
          async ({ attempt, signal }) => {
            if (attempt > 1) return
            signal.addEventListener('abort', () => told.push(true))
            await new Promise(() => {})
          },
          { timeoutMs: 5 },
        )
        return done
      },
    })
    expect(outcome).toEqual(done)
    expect(told).toEqual([true])
  })

  test('ends an attempt when the processor closes, though it does not heed that, and counts it as none that failed', async () => {
    const closing = new AbortController()
    const stop = await pass({
      run: newRun(),
      async code({ step }) {
        await step('slow', () => {
          closing.abort(new Error('It closes.'))
          return new Promise<void>(() => {})
        })
        return done
      },
      history: readHistory([]),
      inputs: new Map(),
      append: () => Promise.reject(new Error('Nothing is to be recorded.')),
      context: () => ({ input: {}, facts: undefined, settings: {}, http: createHttp(systemDeps) }),
      faultOf: () => undefined,
      now: () => NOON_MS,
      closing: closing.signal,
    })
    expect(stop).toEqual({
      ...{ kind: 'later', dueAtMs: NOON_MS, step: 'slow', attempts: 1, failures: 0 },
      reason: 'It closes.',
    })
  })

  test('polls in one step: later is no failure, and leaves one record', async () => {
    let polls = 0
    const { records, outcome } = await runToEnd({
      async run({ step }) {
        const state = await step('settled', async () => (++polls < 500 ? later(60_000) : 'settled'), { attempts: 2 })
        return { output: { state } }
      },
    })
    expect(outcome).toEqual({ output: { state: 'settled' } })
    expect(kinds(records)).toEqual(['done settled', 'ended'])
    expect(records[0]?.atMs).toBe(NOON_MS + 499 * 60_000)
  })

  test('sleeps until the time that was recorded when it began', async () => {
    const { records } = await runToEnd({
      async run({ sleep }) {
        await sleep('day', 86_400_000)
        return done
      },
    })
    expect(kinds(records)).toEqual(['waiting day', 'done day', 'ended'])
    const untilMs = NOON_MS + 86_400_000
    expect(records[0]).toMatchObject({ untilMs, forSignal: false })
    expect(records[1]?.atMs).toBe(untilMs)
  })

  test.each([
    ['returns a function', () => 1],
    ['returns a date', new Date(0)],
    ['returns a BigInt', 1n],
    ['returns NaN', Number.NaN],
    ['returns a circle', circle()],
    ['returns more than 64 KiB', 'x'.repeat(64 * 1024)],
  ])('is stuck where a step %s, and records no result', async (_, result) => {
    const { stop, records } = await runToEnd({
      async run({ step }) {
        await step('odd', async () => result as Json)
        return done
      },
    })
    expect(stop).toMatchObject({
      kind: 'stuck',
      reason: expect.stringMatching(/^The result of odd (?:is no JSON|has )/),
    })
    expect(kinds(records)).toEqual(['stuck'])
  })

  test('is stuck where its results have more than 256 KiB together, or its steps are more than 1000', async () => {
    const many = (count: number, size: number) =>
      runToEnd({
        async run({ step }) {
          for (let index = 0; index < count; index++) await step(`s${index}`, async () => 'x'.repeat(size))
          return done
        },
      })
    expect((await many(5, 60_000)).stop).toMatchObject({ reason: expect.stringContaining('262144 bytes') })
    expect((await many(1001, 1)).stop).toMatchObject({ reason: 'A run has at most 1000 steps.' })
    expect((await many(1000, 1)).outcome).toEqual(done)
  })

  test.each<[string, Code, RegExp]>([
    [
      'calls two steps at once',
      async ({ step }) => Promise.all([step('a', nothing), step('b', nothing)]).then(() => done),
      /^b was called while a was under way/,
    ],
    [
      'uses a name twice',
      async ({ step }) =>
        step('a', nothing)
          .then(() => step('a', nothing))
          .then(() => done),
      /^Two steps have the name a/,
    ],
    [
      'returns without awaiting',
      async ({ step }) => {
        void step('a', () => new Promise(() => {}))
        return done
      },
      /^It returned while a was under way/,
    ],
    ['throws', async () => Promise.reject(new Error('A slip.')), /^Its code threw: A slip/],
    ['gives a step no name', async ({ step }) => step('', nothing).then(() => done), /^The name of a step/],
    [
      'gives a step a name of 81 characters',
      async ({ step }) => step('x'.repeat(81), nothing).then(() => done),
      /^The name of a step/,
    ],
    [
      'gives a step the name of an undo',
      async ({ step }) => step('a/undo', nothing).then(() => done),
      /^The name of a step/,
    ],
  ])('is stuck with a reason where its code %s', async (_, run, reason) => {
    const { stop } = await runToEnd({ run })
    expect(stop).toMatchObject({ kind: 'stuck', reason: expect.stringMatching(reason) })
  })

  test('is stuck where its code no longer matches what is recorded, and does nothing outside', async () => {
    const { act, calls } = outside()
    const before = await runToEnd({
      run: async ({ step }) =>
        step('a', act)
          .then(() => step('b', act))
          .then(() => done),
    })
    const records = before.records.slice(0, 2)
    calls.length = 0
    const other = await runToEnd(
      {
        run: async ({ step }) =>
          step('b', act)
            .then(() => step('a', act))
            .then(() => done),
      },
      { records },
    )
    expect(other.stop).toMatchObject({
      kind: 'stuck',
      reason: expect.stringContaining('it calls b where a is recorded'),
    })
    const shorter = await runToEnd({ run: async ({ step }) => step('a', act).then(() => done) }, { records })
    expect(shorter.stop).toMatchObject({ reason: 'Its code returned before b, which is recorded.' })
    const throwing = await runToEnd({ run: () => Promise.reject(new Error('A slip.')) }, { records })
    expect(throwing.stop).toMatchObject({ reason: 'Its code threw: A slip.' })
    const started: RunRecord = { n: 1, atMs: NOON_MS, kind: 'started', step: 'b', final: false }
    const begun = { records: [...records.slice(0, 1), started] }
    const leaking = await runToEnd({ run: async ({ step }) => step('a', act).then(() => done) }, begun)
    expect(leaking.stop).toMatchObject({ reason: 'Its code returned before b, which is recorded.' })
    expect(calls).toEqual([])
  })

  test('takes time and chance from what is recorded: a replay sees the same', async () => {
    const seen: Json[] = []
    const code: Code = async ({ step, now, random, sleep }) => {
      seen.push([now(), random(), random()])
      await step('a', nothing)
      await sleep('b', 1000)
      seen.push([now(), random()])
      await step('c', nothing)
      return done
    }
    const { records } = await runToEnd({ run: code })
    const first = seen.slice(-2)
    await runToEnd({ run: code }, { records: records.slice(0, -1), startMs: NOON_MS + 99_999 })
    expect(seen.slice(-2)).toEqual(first)
    expect(new Set(first.flat()).size).toBe(5)
  })

  test('has random numbers from 0 to 1, without 1', async () => {
    const numbers: number[] = []
    await runToEnd({
      async run({ random }) {
        for (let count = 0; count < 1000; count++) numbers.push(random())
        return done
      },
    })
    expect(Math.min(...numbers)).toBeWithin(0, 0.1)
    expect(Math.max(...numbers)).toBeWithin(0.9, 1)
  })

  test('sees the same time in the pass that goes on for a redrive as in those after it', async () => {
    const seen: number[] = []
    const code =
      (isBroken: boolean): Code =>
      async ({ step, now }) => {
        seen.push(now())
        if (isBroken) throw new Error('A slip.')
        await step('a', async ({ attempt }) => (attempt < 3 ? later(1000) : null))
        return done
      }
    const { records } = await runToEnd({ run: code(true) })
    await runToEnd({ run: code(false) }, { records, inputs: [redrive(records)], startMs: NOON_MS + 99_999 })
    expect(seen).toEqual([NOON_MS, NOON_MS, NOON_MS, NOON_MS])
  })

  test.each<[string, Code]>([
    ['sleeps for ever', async ({ sleep }) => sleep('a', Number.POSITIVE_INFINITY).then(() => done)],
    ['sleeps for less than no time', async ({ sleep }) => sleep('a', -1).then(() => done)],
    [
      'has a pause that is no time',
      async ({ step }) => step('a', nothing, { firstPauseMs: Number.NaN }).then(() => done),
    ],
    ['is to be called later than ever', async ({ step }) => step('a', async () => later(Number.NaN)).then(() => done)],
    [
      'throws before it awaits anything',
      () => {
        throw new Error('A slip.')
      },
    ],
  ])('is stuck, and harms no other, where its code %s', async (_, run) => {
    expect((await runToEnd({ run })).stop.kind).toBe('stuck')
  })

  test('records nothing more once it is stuck, though a step is still under way, and whatever that comes to', async () => {
    const failing = await runToEnd({
      run: async ({ step }) => {
        const slow = step('slow', () => Bun.sleep(1).then(() => Promise.reject(new Error('No.'))), { attempts: 1 })
        await Promise.all([slow, step('other', nothing)])
        return done
      },
    })
    await Bun.sleep(5)
    expect(kinds(failing.records)).toEqual(['stuck'])

    const finish = Promise.withResolvers<void>()
    const { records } = await runToEnd({
      run: async ({ step }) => {
        const slow = step('slow', () => finish.promise)
        await Promise.all([slow, step('other', nothing)])
        return done
      },
    })
    finish.resolve()
    await Bun.sleep(0)
    expect(kinds(records)).toEqual(['stuck'])
  })

  test('is stuck where its output does not fit the contract', async () => {
    const { stop } = await runToEnd({ run: async () => done }, { faultOf: () => 'Its output does not fit.' })
    expect(stop).toMatchObject({ kind: 'stuck', reason: 'Its output does not fit.' })
  })
})

describe('the bounds of a run', () => {
  test('a result of 64 KiB and 256 KiB of results are kept; a byte more is not, also after a crash', async () => {
    const code =
      (sizes: readonly number[]): Code =>
      async ({ step }) => {
        await step('nothing', nothing)
        // In JSON a text is longer by its quotes.
        for (const [index, size] of sizes.entries()) await step(`s${index}`, async () => 'x'.repeat(size - 2))
        return done
      }
    const most = [65_536, 65_536, 65_536, 65_536]
    const { records, outcome } = await runToEnd({ run: code(most) })
    expect(outcome).toEqual(done)
    expect((await runToEnd({ run: code([65_537]) })).stop).toMatchObject({
      reason: 'The result of s0 has 65537 bytes; at most 65536 are kept.',
    })
    const crashed = await runToEnd({ run: code([...most, 3]) }, { records: records.slice(0, 5) })
    expect(crashed.stop).toMatchObject({ reason: 'The results of its steps have more than 262144 bytes together.' })
  })

  test('a reason has at most 500 characters', async () => {
    const long = 'x'.repeat(2000)
    const failing = await runToEnd({
      run: async ({ step }) => step('a', () => Promise.reject(new Error(long)), { attempts: 1 }).then(() => done),
    })
    const throwing = await runToEnd({ run: () => Promise.reject(new Error(long)) })
    for (const { stop } of [failing, throwing]) expect(stop.kind === 'stuck' && stop.reason).toHaveLength(500)
  })

  test('a wait is from 0 ms to 30 days', async () => {
    const sleeping = (ms: number) => runToEnd({ run: async ({ sleep }) => sleep('a', ms).then(() => done) })
    expect((await sleeping(0)).outcome).toEqual(done)
    expect((await sleeping(LONGEST_LIFE_MS)).records[0]).toMatchObject({ untilMs: NOON_MS + LONGEST_LIFE_MS })
    expect((await sleeping(LONGEST_LIFE_MS + 1)).stop).toMatchObject({
      reason: 'The time that a is to wait cannot be kept: it is no number of ms from 0 to 30 days.',
    })
  })
})

describe('an answer', () => {
  const asking: Code = async ({ signal }) => {
    const given = await signal('approve', { withinMs: 3_600_000 })
    return given?.approved === true ? done : refused
  }

  test('that came before it was asked for is taken at once', async () => {
    const { records, outcome } = await runToEnd({ run: asking }, { inputs: [approve()] })
    expect(kinds(records)).toEqual(['done approve', 'ended'])
    expect(outcome).toEqual(done)
  })

  test('that does not come ends the wait at its deadline, once and for all', async () => {
    const waited = await runToEnd({ run: asking })
    expect(waited.outcome).toEqual(refused)
    expect(waited.records[1]).toMatchObject({ kind: 'done', atMs: NOON_MS + 3_600_000 })
    const late = await runToEnd({ run: asking }, { records: waited.records.slice(0, 2), inputs: [approve()] })
    expect(late.outcome).toEqual(refused)
  })

  test('nobody asked for changes nothing', async () => {
    const { outcome, records } = await runToEnd(
      { run: async ({ step }) => step('a', nothing).then(() => done) },
      { inputs: [approve()] },
    )
    expect(outcome).toEqual(done)
    expect(kinds(records)).toEqual(['done a', 'ended'])
  })
})

describe('undo', () => {
  const booking = (world: ReturnType<typeof outside>, last: (context: Context) => Promise<unknown>): Code => {
    return async (context) => {
      await context.step('hotel', world.act, {
        undo: async (result, { idempotencyKey }) => void world.calls.push(`${idempotencyKey} of ${result}`),
      })
      await context.step('note', world.act)
      await context.step('flight', world.act, {
        undo: async (_, { idempotencyKey }) => void world.calls.push(idempotencyKey),
      })
      await last(context)
      return refused
    }
  }

  test('runs in reverse order where the run fails, as steps that are recorded, with the results', async () => {
    const world = outside()
    const { records, outcome } = await runToEnd({ run: booking(world, async () => {}) })
    expect(kinds(records)).toEqual([
      'started hotel',
      'done hotel',
      'done note',
      'started flight',
      'done flight',
      'failing',
      'undone flight',
      'undone hotel',
      'ended',
    ])
    expect(world.calls.slice(3)).toEqual(['op/flight/undo', 'op/hotel/undo of did op/hotel'])
    expect(outcome).toEqual(refused)
  })

  test('goes on after a crash in the middle, and is not done again', async () => {
    const world = outside()
    const code = booking(world, async () => {})
    const { records } = await runToEnd({ run: code })
    world.calls.length = 0
    const again = await runToEnd({ run: code }, { records: records.slice(0, 7) })
    expect(world.calls).toEqual(['op/hotel/undo of did op/hotel'])
    expect(again.outcome).toEqual(refused)
  })

  test('of a step that started and has no result comes after it was done, under the same key', async () => {
    const world = outside()
    const code = booking(world, async () => {})
    const started = (await runToEnd({ run: code })).records.slice(0, 1)
    world.calls.length = 0
    const { records, outcome } = await runToEnd({ run: code }, { records: started, inputs: [input('cancel')] })
    expect(world.calls).toEqual(['op/hotel 1', 'op/hotel/undo of did op/hotel'])
    expect(kinds(records)).toEqual(['started hotel', 'failing', 'done hotel', 'undone hotel', 'ended'])
    expect(outcome).toMatchObject({ failure: { code: 'cancelled' } })
  })

  test('may be called later, as a step may', async () => {
    let polls = 0
    const { records, outcome } = await runToEnd({
      async run({ step }) {
        await step('hotel', nothing, { undo: async () => (++polls < 3 ? later(60_000) : undefined) })
        return refused
      },
    })
    expect(polls).toBe(3)
    expect(kinds(records).slice(-3)).toEqual(['failing', 'undone hotel', 'ended'])
    expect(outcome).toEqual(refused)
  })

  test('that fails for good leaves the run stuck, to go on where it stopped', async () => {
    let broken = true
    const code: Code = async ({ step }) => {
      await step('hotel', nothing, {
        attempts: 2,
        undo: async () => {
          if (broken) throw new Error('Closed.')
        },
      })
      return refused
    }
    const { stop, records } = await runToEnd({ run: code })
    expect(stop).toMatchObject({
      kind: 'stuck',
      reason: 'hotel/undo failed 2 times: Closed.',
      dueAtMs: Number.MAX_SAFE_INTEGER,
    })
    broken = false
    const redriven = await runToEnd({ run: code }, { records, inputs: [redrive(records)] })
    expect(kinds(redriven.records).slice(-3)).toEqual(['resumed', 'undone hotel', 'ended'])
    expect(redriven.outcome).toEqual(refused)
  })
})

test('time out ends whatever a run waits for, as soon as it is reached', async () => {
  const nearly = NOON_MS + LONGEST_LIFE_MS - 1000
  const waits: Code[] = [
    async ({ step }) => step('poll', async () => later(86_400_000)).then(() => done),
    async ({ step }) =>
      step('fail', () => Promise.reject(new Error('No.')), { firstPauseMs: 86_400_000 }).then(() => done),
    async ({ sleep }) => sleep('long', 86_400_000).then(() => done),
    async ({ signal }) => signal('approve').then(() => done),
  ]
  for (const run of waits) {
    const { records, outcome } = await runToEnd({ run }, { startMs: nearly })
    expect(outcome).toMatchObject({ failure: { code: 'timed-out' } })
    expect(records.at(-1)?.atMs).toBe(NOON_MS + LONGEST_LIFE_MS)
  }
})

describe('a cancel', () => {
  const code: Code = async ({ step, sleep }) => {
    await step('a', nothing)
    await sleep('b', 1000)
    await step('c', nothing)
    return done
  }

  test('that came before the first step lets nothing begin', async () => {
    const { records, outcome } = await runToEnd({ run: code }, { inputs: [input('cancel')] })
    expect(kinds(records)).toEqual(['failing', 'ended'])
    expect(outcome).toMatchObject({ failure: { code: 'cancelled' } })
  })

  test('that comes during a wait, or during an undo, or after the end is obeyed at most once', async () => {
    const { records } = await runToEnd({ run: code })
    for (let count = 1; count <= records.length; count++) {
      const cancelled = await runToEnd({ run: code }, { records: records.slice(0, count), inputs: [input('cancel')] })
      const failings = kinds(cancelled.records).filter((kind) => kind === 'failing')
      // After the last step nothing is left to be cancelled.
      expect(failings).toHaveLength(count < 4 ? 1 : 0)
      expect(kinds(cancelled.records).filter((kind) => kind === 'ended')).toHaveLength(1)
    }
  })

  test('that came before a sleep, or a signal, lets it not begin', async () => {
    const inputs = [input('cancel')]
    const sleeping = await runToEnd({ run: async ({ sleep }) => sleep('a', 1000).then(() => done) }, { inputs })
    expect(kinds(sleeping.records)).toEqual(['failing', 'ended'])
    const asking = await runToEnd({ run: async ({ signal }) => signal('approve').then(() => done) }, { inputs })
    expect(kinds(asking.records)).toEqual(['failing', 'ended'])
  })

  test('stops nothing past the point of no return, and neither does time', async () => {
    const final: Code = async ({ step }) => {
      await step('reserve', nothing, { undo: nothing })
      await step('pay', nothing, { final: true })
      await step('receipt', nothing)
      return done
    }
    const { records } = await runToEnd({ run: final })
    expect(kinds(records).slice(0, 3)).toEqual(['started reserve', 'done reserve', 'started pay'])
    const startMs = NOON_MS + LONGEST_LIFE_MS + 1
    const paying = { records: records.slice(0, 3), inputs: [input('cancel')], startMs }
    expect((await runToEnd({ run: final }, paying)).outcome).toEqual(done)
    const before = await runToEnd({ run: final }, { ...paying, records: records.slice(0, 2) })
    expect(kinds(before.records).slice(2)).toEqual(['failing', 'undone reserve', 'ended'])
  })
})

describe('a run that is stuck', () => {
  const stuckCode: Code = async ({ step }) => {
    await step('reserve', nothing, { undo: nothing })
    await step('send', () => Promise.reject(new Error('No.')), { attempts: 1 })
    return done
  }
  const fixed: Code = async ({ step }) => {
    await step('reserve', nothing, { undo: nothing })
    await step('send', nothing)
    return done
  }

  test('does nothing until somebody decides', async () => {
    const { records } = await runToEnd({ run: stuckCode })
    const again = await runToEnd({ run: fixed }, { records })
    expect(again.records).toEqual(records)
    expect(again.stop).toMatchObject({
      kind: 'stuck',
      reason: 'send failed 1 times: No.',
      dueAtMs: NOON_MS + LONGEST_LIFE_MS,
    })
  })

  test('goes on where it stopped for a redrive, once for each, and may be stuck again', async () => {
    const { records } = await runToEnd({ run: stuckCode })
    const again = await runToEnd({ run: stuckCode }, { records, inputs: [redrive(records)] })
    expect(kinds(again.records).slice(-3)).toEqual(['stuck', 'resumed', 'stuck'])
    const same = await runToEnd({ run: fixed }, { records: again.records, inputs: [redrive(records)] })
    expect(same.records).toEqual(again.records)
    const second = await runToEnd(
      { run: fixed },
      { records: again.records, inputs: [redrive(records), redrive(again.records)] },
    )
    expect(second.outcome).toEqual(done)
  })

  test('is undone and ends as dead-lettered where its dead letter is discarded, and is never stuck again', async () => {
    const { records } = await runToEnd({ run: stuckCode })
    const { outcome, records: all } = await runToEnd({ run: fixed }, { records, inputs: [abandon(records)] })
    expect(outcome).toMatchObject({ failure: { code: 'dead-lettered' } })
    expect(kinds(all).slice(-4)).toEqual(['stuck', 'failing', 'undone reserve', 'ended'])

    const throwing = await runToEnd({ run: () => Promise.reject(new Error('A slip.')) })
    const given = { records: throwing.records, inputs: [abandon(throwing.records)] }
    const left = await runToEnd({ run: () => Promise.reject(new Error('A slip.')) }, given)
    expect(kinds(left.records)).toEqual(['stuck', 'failing', 'ended'])
    expect(left.stop).toEqual({ kind: 'ended' })
  })

  test('past the point of no return undoes nothing when it is discarded', async () => {
    const paying: Code = async ({ step }) => {
      await step('reserve', nothing, { undo: nothing })
      await step('pay', () => Promise.reject(new Error('No.')), { final: true, attempts: 1 })
      return done
    }
    const { records, stop } = await runToEnd({ run: paying })
    expect(stop).toMatchObject({ dueAtMs: Number.MAX_SAFE_INTEGER })
    const given = await runToEnd({ run: paying }, { records, inputs: [abandon(records)] })
    expect(kinds(given.records).slice(-2)).toEqual(['stuck', 'ended'])
    expect(given.stop).toEqual({ kind: 'ended' })
  })

  test('obeys no decision about an earlier dead letter of it', async () => {
    const first = await runToEnd({ run: stuckCode })
    const second = await runToEnd({ run: stuckCode }, { records: first.records, inputs: [redrive(first.records)] })
    const stale = { records: second.records, inputs: [redrive(first.records), abandon(first.records)] }
    expect((await runToEnd({ run: fixed }, stale)).records).toEqual(second.records)
  })

  test('does nothing until somebody decides while it is undone, either', async () => {
    let calls = 0
    const code: Code = async ({ step }) => {
      const undo = () => Promise.reject(new Error(`No. ${++calls}`))
      await step('reserve', nothing, { undo, attempts: 1 })
      return refused
    }
    const { records } = await runToEnd({ run: code })
    expect(kinds(records).slice(-2)).toEqual(['failing', 'stuck'])
    const again = await runToEnd({ run: code }, { records, inputs: [input('cancel'), approve()] })
    expect(again.records).toEqual(records)
    expect(again.stop).toMatchObject({ kind: 'stuck', dueAtMs: Number.MAX_SAFE_INTEGER })
    expect(calls).toBe(1)
  })

  test('can be cancelled, and times out after 30 days: it is undone', async () => {
    const { records } = await runToEnd({ run: stuckCode })
    const cancelled = await runToEnd({ run: stuckCode }, { records, inputs: [input('cancel')] })
    expect(kinds(cancelled.records).slice(-3)).toEqual(['failing', 'undone reserve', 'ended'])
    const late = await runToEnd({ run: stuckCode }, { records, startMs: NOON_MS + LONGEST_LIFE_MS })
    expect(late.outcome).toMatchObject({ failure: { code: 'timed-out' } })
  })
})

test('whatever a run does and wherever it crashes, it comes to the same outcome, and each key has its effect as often as it was attempted after the last record', async () => {
  const Step = fc.record({
    kind: fc.constantFrom('step', 'undoable', 'final', 'sleep', 'signal', 'flaky'),
    fails: fc.integer({ min: 0, max: 2 }),
  })
  await fc.assert(
    fc.asyncProperty(
      fc.array(Step, { maxLength: 8 }),
      fc.boolean(),
      fc.array(fc.nat({ max: 30 }), { maxLength: 6 }),
      fc.option(fc.nat({ max: 10 }), { nil: undefined }),
      async (steps, succeeds, crashes, cancelAfter) => {
        const holding = new Set<string>()
        const paid = new Set<string>()
        const failures = new Map<string, number>()
        const code: Code = async (context) => {
          for (const [index, { kind, fails }] of steps.entries()) {
            const name = `${kind}-${index}`
            const flaky = async () => {
              const failed = failures.get(name) ?? 0
              failures.set(name, failed + 1)
              if (failed < fails) throw new Error('Not yet.')
              return index
            }
            if (kind === 'step' || kind === 'flaky') await context.step(name, flaky)
            if (kind === 'undoable')
              await context.step(name, async ({ idempotencyKey }) => holding.add(idempotencyKey) && flaky(), {
                undo: async (result) => {
                  expect(result).toBe(index)
                  holding.delete(`op/${name}`)
                },
              })
            if (kind === 'final')
              await context.step(name, async ({ idempotencyKey }) => void paid.add(idempotencyKey), { final: true })
            if (kind === 'sleep') await context.sleep(name, 1000)
            if (kind === 'signal') await context.signal(name, { withinMs: 5000 })
          }
          return succeeds ? done : refused
        }
        const records: RunRecord[] = []
        const crashAt = [...crashes]
        let writes = 0
        let outcome: Awaited<ReturnType<typeof runToEnd>>['outcome']
        let nowMs = NOON_MS
        while (!outcome) {
          const inputs: RunInput[] = cancelAfter !== undefined && writes >= cancelAfter ? [input('cancel')] : []
          try {
            const ran = await runToEnd(
              { run: code },
              {
                run: newRun({ createdAt: NOON }),
                records,
                inputs,
                startMs: nowMs,
                beforeAppend(record) {
                  nowMs = record.atMs
                  writes += 1
                  const before = crashAt[0] === writes
                  if (before) {
                    crashAt.shift()
                    throw new Error('Killed.')
                  }
                  records.push(JSON.parse(JSON.stringify(record)))
                },
              },
            )
            expect(ran.stop.kind).toBe('ended')
            outcome = ran.outcome
          } catch (error) {
            if (!(error instanceof Error && error.message === 'Killed.')) throw error
          }
        }
        const isSuccess = 'output' in outcome
        if (!isSuccess) expect([...holding]).toEqual([])
        else expect(holding.size).toBe(steps.filter(({ kind }) => kind === 'undoable').length)
        if (isSuccess) expect(paid.size).toBe(steps.filter(({ kind }) => kind === 'final').length)
        if (paid.size > 0 && !isSuccess) expect(outcome).toEqual(refused)
        expect(records.filter(({ kind }) => kind === 'ended')).toHaveLength(1)
        const doneSteps = records.flatMap((record) => (record.kind === 'done' ? [record.step] : []))
        expect(new Set(doneSteps).size).toBe(doneSteps.length)
      },
    ),
    { numRuns: 300 },
  )
})

async function nothing(): Promise<void> {}
/** A redrive of the dead letter of the last record, which is that the run is stuck. */
function redrive(records: readonly RunRecord[]): RunInput {
  return input(redriveInput(redriveId(deadLetterOf(newRun(), { n: records.length - 1 }))))
}
function abandon(records: readonly RunRecord[]): RunInput {
  return input(abandonInput(deadLetterOf(newRun(), { n: records.length - 1 })))
}
function circle(): object {
  const object: { self?: object } = {}
  object.self = object
  return object
}
