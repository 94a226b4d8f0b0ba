import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { redriveId } from '@posta/common/messages/dead-letter.ts'
import { decode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { topics } from '@posta/common/messages/topics.ts'
import { isLong } from '@posta/common/testing/long.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import fc from 'fast-check'
import * as v from 'valibot'
import { type AnyPerformer, type Attempt, type Json, type Later, later } from '../performers/performer.ts'
import { toReply } from '../reply.ts'
import type { Result } from '../results/results.ts'
import { openEmbedded } from '../store/embedded.ts'
import { type Fault, type FaultyProcessor, type Shared, startFaulty } from '../testing/faulty-processor.ts'
import { delivered, NOON } from '../testing/requests.ts'
import { deadLetterOf, messagesOf } from './run-messages.ts'
import {
  abandonInput,
  CANCEL,
  LONGEST_LIFE_MS,
  type NewRun,
  type RunInput,
  RunRecord,
  type Runs,
  redriveInput,
  signalInput,
} from './runs.ts'

// Random runs on processors that crash, freeze and hold one run together, on one store. What came of them is held against
// a model that knows the code of each run, and nothing of how the runner works.

type Code = NonNullable<AnyPerformer['run']>

const Step = fc.record({
  kind: fc.constant('step' as const),
  undo: fc.boolean(),
  final: fc.nat({ max: 3 }).map((number) => number === 0),
  /** How many attempts fail, and how: before or after the effect, or by never answering. */
  failures: fc.nat({ max: 2 }),
  failing: fc.constantFrom('before', 'after', 'hangs'),
  /** How often it says `later`. */
  polls: fc.nat({ max: 2 }),
  undoFailures: fc.nat({ max: 2 }),
  attempts: fc.constantFrom(1, 2, 20),
  tookMs: fc.nat({ max: 3 }),
})
const Sleep = fc.record({ kind: fc.constant('sleep' as const), ms: fc.nat({ max: 20 }) })
const Signal = fc.record({
  kind: fc.constant('signal' as const),
  /** Undefined: it waits until the answer comes, which one does then. */
  withinMs: fc.option(fc.nat({ max: 30 }), { nil: undefined }),
  answer: fc.record({ approved: fc.nat({ max: 3 }).map((number) => number > 0), atMs: fc.nat({ max: 60 }) }),
})
const rarely = <Value>(value: fc.Arbitrary<Value>) => fc.option(value, { nil: undefined, freq: 1 })
const Program = fc.record({
  user: fc.constantFrom('ana', 'bob'),
  ops: fc.array(fc.oneof({ arbitrary: Step, weight: 4 }, Sleep, Signal), { maxLength: 5 }),
  /** Before which of `ops` it fails; at their end if it is their number. */
  failsAt: rarely(fc.nat({ max: 5 })),
  /** Before which of `ops` the code throws, once. */
  throwsAt: rarely(fc.nat({ max: 4 })),
  requestedAtMs: fc.array(fc.nat({ max: 40 }), { minLength: 1, maxLength: 2 }),
  cancelledAtMs: fc.oneof(fc.constant<number[]>([]), fc.array(fc.nat({ max: 60 }), { maxLength: 2 })),
  /** In which of `ops` a cancel comes, where that is a step. */
  cancelledIn: rarely(fc.nat({ max: 4 })),
  /** When it comes to its longest life. */
  livesMs: rarely(fc.nat({ max: 50 })),
  /** How often it is redriven before it is discarded. */
  redrives: fc.nat({ max: 3 }),
})
type Program = typeof Program extends fc.Arbitrary<infer Value> ? Value : never
type Step = typeof Step extends fc.Arbitrary<infer Value> ? Value : never

const AnyFault = fc.record({
  at: fc.integer({ min: 1, max: 25 }),
  kind: fc.constantFrom('kill', 'kill', 'cut off', 'reject', 'freeze', 'suspect'),
  afterwards: fc.boolean(),
  lastsMs: fc.integer({ min: 1, max: 40 }),
})
const Plan = fc.record({
  programs: fc.array(Program, { minLength: 1, maxLength: 4 }),
  /** Each has a processor, and the next one when that is killed. */
  places: fc.array(
    fc.record({ skewMs: fc.integer({ min: -20, max: 20 }), faults: fc.array(AnyFault, { maxLength: 3 }) }),
    {
      minLength: 2,
      maxLength: 3,
    },
  ),
  racyHeads: fc.nat({ max: 2 }).map((number) => number === 0),
  publishMs: fc.constantFrom(0, 0, 5, 20),
})
type Plan = typeof Plan extends fc.Arbitrary<infer Value> ? Value : never

const ENDED_WITHIN_MS = 15_000
/** Where there is such a folder, a sync costs nothing. No power cut is tested here. */
const IN_MEMORY = '/dev/shm'
const output = sample.output()
const refused = { failure: { code: 'limit-exceeded', message: 'No.' } } as const
const nameOf = ({ kind }: Program['ops'][number], index: number) => `${kind}-${index}`

/** What every run of a plan does outside, and what was wrong with that. */
function createWorld(historyOf: (id: string) => readonly RunRecord[]) {
  const faults: string[] = []
  const counters = new Map<string, number>()
  const returned = new Map<string, Set<string>>()
  const answers = new Map<string, string>()
  return {
    faults,
    historyOf,
    /** By key. False: it was released. */
    holdings: new Map<string, boolean>(),
    paid: new Set<string>(),
    returned,
    /** How often it was called with this name before. */
    count(name: string): number {
      const before = counters.get(name) ?? 0
      counters.set(name, before + 1)
      return before
    },
    /** What a run is told of time and chance must be the same each time. */
    same(what: string, value: unknown) {
      const text = JSON.stringify(value)
      const before = answers.get(what) ?? text
      answers.set(what, before)
      if (before !== text) faults.push(`${what} was ${before} before, and is ${text} now`)
    },
  }
}
type World = ReturnType<typeof createWorld>

/** The code of all runs, on one processor. */
function codeOf(
  world: World,
  programs: ReadonlyMap<string, Program>,
  /** Whether a processor may do once what another recorded since it read the history. */
  mayBeTwo: boolean,
  cancel: (id: string) => Promise<void>,
): Parameters<typeof startFaulty>[1] {
  const { faults, historyOf, same } = world

  return ({ gate, known }): Code => {
    const wrong = (id: string, what: string) =>
      void faults.push(`${id}: ${what}. Its history: ${shown(historyOf(id))}; of which it knew ${known(id)}`)

    /** Whether a record of the run is one that this processor had to heed. */
    const binds = (id: string, record: RunRecord | undefined) =>
      record !== undefined && (!mayBeTwo || record.n < known(id))

    function checkAttempt(id: string, { ops }: Program, index: number, op: Step, given: Attempt): void {
      const records = historyOf(id)
      const name = nameOf(op, index)
      const find = (kind: RunRecord['kind'], step?: string) =>
        records.find(
          (record) => record.kind === kind && (step === undefined || ('step' in record && record.step === step)),
        )
      for (const [at, before] of ops.slice(0, index).entries())
        if (!find('done', nameOf(before, at))) wrong(id, `${name} begins before the record of ${nameOf(before, at)}`)
      if (binds(id, find('done', name))) wrong(id, `${name} is done again after its record`)
      if (binds(id, find('ended'))) wrong(id, `${name} is done after the end`)
      if (binds(id, find('failing')) && !(op.undo && find('started', name)))
        wrong(id, `${name} is done though it fails`)
      if ((op.undo || op.final) && !find('started', name)) wrong(id, `${name} begins without a record of its start`)
      if (given.idempotencyKey !== `${id}/${name}`) wrong(id, `${name} has the key ${given.idempotencyKey}`)
      if (!(given.attempt >= 1)) wrong(id, `${name} has the attempt ${given.attempt}`)
    }

    async function attempt(
      id: string,
      program: Program,
      index: number,
      op: Step,
      given: Attempt,
    ): Promise<Json | Later> {
      const key = `${id}/${nameOf(op, index)}`
      return gate.write(async () => {
        given.signal.throwIfAborted()
        checkAttempt(id, program, index, op, given)
        const fails = world.count(`${key} fails`) < op.failures
        if (fails && op.failing === 'before') throw new Error('Not yet.')
        if (op.undo && !world.holdings.has(key)) world.holdings.set(key, true)
        if (op.final) world.paid.add(key)
        if (program.cancelledIn === index) await cancel(id)
        if (op.tookMs > 0) await Bun.sleep(op.tookMs)
        await gate.here()
        if (fails && op.failing === 'hangs') return new Promise(() => {})
        if (fails) throw new Error('It broke off.')
        if (world.count(`${key} polls`) < op.polls) return later(2)
        const value = { key, value: world.count(`${key} returns`) }
        world.returned.set(key, (world.returned.get(key) ?? new Set()).add(JSON.stringify(value)))
        return value
      })
    }

    async function takeBack(id: string, name: string, op: Step, result: unknown, given: Attempt): Promise<void> {
      await gate.write(async () => {
        given.signal.throwIfAborted()
        const records = historyOf(id)
        const key = `${id}/${name}`
        const done = records.find((record) => record.kind === 'done' && record.step === name)
        const undone = records.find((record) => record.kind === 'undone' && record.step === name)
        if (!records.some(({ kind }) => kind === 'failing')) wrong(id, `${name} is undone though it does not fail`)
        if (binds(id, undone)) wrong(id, `${name} is undone again after its record`)
        if (!done || !('result' in done) || !Bun.deepEquals(done.result, result))
          wrong(id, `${name} is undone with ${JSON.stringify(result)}`)
        if (given.idempotencyKey !== `${key}/undo`) wrong(id, `The undo of ${name} has the key ${given.idempotencyKey}`)
        if (world.count(`${key} undos`) < op.undoFailures) throw new Error('It cannot be released yet.')
        world.holdings.set(key, false)
      })
    }

    return async ({ id, step, sleep, signal, now, random }) => {
      const program = programs.get(id)
      if (!program) throw new Error('There is no such run.')
      const { ops, failsAt, throwsAt } = program
      /** A result that is given to the code is the recorded one. */
      const given = (name: string, result: unknown) => {
        const record = historyOf(id).find((each) => each.kind === 'done' && each.step === name)
        const recorded = record && 'result' in record ? (record.result ?? undefined) : undefined
        if (!record || !Bun.deepEquals(recorded, result))
          wrong(id, `The code goes on after ${name} with ${JSON.stringify(result)}`)
      }
      for (const [index, op] of ops.entries()) {
        const name = nameOf(op, index)
        same(`The time before ${name} of ${id}`, now())
        same(`The random number before ${name} of ${id}`, random())
        if (failsAt === index) return refused
        if (throwsAt === index && world.count(`${id} throws`) === 0) throw new Error('A slip.')
        if (op.kind === 'step') {
          const { undo, final, attempts } = op
          const options = { final, attempts, timeoutMs: 60, firstPauseMs: 1, longestPauseMs: 4 }
          const result = await step(name, (attempted) => attempt(id, program, index, op, attempted), {
            ...options,
            ...(undo && { undo: (result, attempted) => takeBack(id, name, op, result, attempted) }),
          })
          given(name, result)
        }
        if (op.kind === 'sleep') await sleep(name, op.ms)
        if (op.kind === 'signal') {
          const { withinMs } = op
          const answer = await signal(name, withinMs === undefined ? {} : { withinMs })
          given(name, answer)
          if (answer?.approved === false) return refused
        }
      }
      return failsAt === ops.length ? refused : { output }
    }
  }
}

const shown = (records: readonly RunRecord[]) =>
  records.map((record) => ('step' in record ? `${record.kind} ${record.step}` : record.kind)).join(', ')

/** What is wrong with a history of a run of this program. Undefined: the code and what came for the run allow it. */
function faultOfHistory(
  { ops, failsAt }: Program,
  run: NewRun,
  inputs: readonly RunInput[],
  records: readonly RunRecord[],
  returned: ReadonlyMap<string, ReadonlySet<string>>,
): string | undefined {
  const hasInput = (name: string) => inputs.some((input) => input.name === name)
  const toUndo: string[] = []
  let at = 0
  let stopsAt = failsAt !== undefined && failsAt <= ops.length ? failsAt : undefined
  let entered: 'started' | Extract<RunRecord, { kind: 'waiting' }> | undefined
  let failing: string | undefined
  let stuck: number | undefined
  let isPastReturn = false
  let atMs = run.decidedAtMs
  let isOver = false

  /** Whether the record may come now. */
  function may(record: RunRecord): boolean {
    if (isOver || (stuck !== undefined && !['resumed', 'failing', 'ended'].includes(record.kind))) return false
    const op = ops[at]
    const isHere = op !== undefined && at !== stopsAt && 'step' in record && record.step === nameOf(op, at)
    const hasStart = op?.kind === 'step' && (op.undo || op.final)
    const isAbandoned = stuck !== undefined && hasInput(abandonInput(deadLetterOf(run, { n: stuck })))
    if (record.kind === 'started') return isHere && hasStart && !failing && !entered && record.final === op.final
    if (record.kind === 'waiting') {
      const forSignal = op?.kind === 'signal'
      return isHere && op.kind !== 'step' && !failing && !entered && record.forSignal === forSignal
    }
    if (record.kind === 'done') {
      if (!isHere) return false
      if (op.kind === 'step') {
        const isReturned = returned.get(`${run.id}/${record.step}`)?.has(JSON.stringify(record.result)) ?? false
        return isReturned && hasStart === (entered === 'started') && (!failing || op.undo)
      }
      const isWaitOver = typeof entered === 'object' && record.atMs >= entered.untilMs
      if (failing) return false
      if (op.kind === 'sleep') return isWaitOver
      const given = inputs.find(({ name }) => name === signalInput(record.step))
      return record.result == null ? isWaitOver : Bun.deepEquals(record.result, given?.payload)
    }
    if (record.kind === 'failing') {
      const { code } = record.failure
      if (failing) return false
      if (code === 'dead-lettered') return isAbandoned && !isPastReturn
      if (code === 'cancelled') return hasInput(CANCEL) && !isPastReturn
      if (code === 'timed-out') return record.atMs >= Date.parse(run.createdAt) + LONGEST_LIFE_MS && !isPastReturn
      return at === stopsAt && stuck === undefined
    }
    if (record.kind === 'undone') {
      const isResolved = !(entered === 'started' && op?.kind === 'step' && op.undo)
      return failing !== undefined && isResolved && record.step === toUndo.at(-1)
    }
    if (record.kind === 'resumed')
      return stuck !== undefined && hasInput(redriveInput(redriveId(deadLetterOf(run, { n: stuck }))))
    if (record.kind === 'stuck') return true
    if ('output' in record.outcome) return at === ops.length && stopsAt === undefined && !failing && stuck === undefined
    const { code } = record.outcome.failure
    if (code === 'dead-lettered') return isAbandoned || failing === code
    return code === failing && toUndo.length === 0 && entered !== 'started' && stuck === undefined
  }

  for (const [index, record] of records.entries()) {
    if (record.n !== index) return `Record ${index} has the number ${record.n}`
    if (record.atMs < atMs) return `Record ${index} is older than the one before`
    if (!may(record)) return `Record ${index} must not come there`
    atMs = record.atMs
    const op = ops[at]
    if (record.kind === 'started') entered = 'started'
    if (record.kind === 'waiting') entered = record
    if (record.kind === 'started' && record.final) isPastReturn = true
    if (record.kind === 'done') {
      entered = undefined
      if (op?.kind === 'step' && op.undo) toUndo.push(record.step)
      at += 1
      const answer = op?.kind === 'signal' && v.is(v.object({ approved: v.literal(false) }), record.result)
      if (answer) stopsAt = at
    }
    if (record.kind === 'failing') failing = record.failure.code
    if (record.kind === 'undone') toUndo.pop()
    if (record.kind === 'ended') isOver = true
    stuck = record.kind === 'stuck' ? index : undefined
  }
  return isOver ? undefined : 'It has not ended'
}

/** Does the plan. Resolves to what was wrong. */
async function faultsOf(plan: Plan, weaken: (runs: Runs) => Runs = (runs) => runs): Promise<readonly string[]> {
  using folder = temporaryFolder(existsSync(IN_MEMORY) ? IN_MEMORY : undefined)
  const path = join(folder.path, 'store.db')
  const store = openEmbedded(path)
  await store.ping()
  using reader = new Database(path, { readonly: true })
  const select = reader.query<{ body: string }, [string]>('SELECT body FROM run_records WHERE run = ? ORDER BY n')
  const world = createWorld((id) => select.all(id).map(({ body }) => v.parse(RunRecord, JSON.parse(body))))
  const { faults, historyOf } = world

  const startMs = Date.now()
  const programs = new Map(plan.programs.map((program, index) => [`op-${index}`, program]))
  const runs = new Map([...programs].map(([id, program]) => [id, newRun(id, program, startMs)]))
  const shared: Shared = {
    store: { results: store.results, runs: weaken(store.runs) },
    published: [],
    processors: new Map(),
    racyHeads: plan.racyHeads,
    publishMs: plan.publishMs,
  }
  const hasTwoHolders = ({ kind }: Fault) => kind === 'freeze' || kind === 'suspect'
  const mayBeTwo = plan.racyHeads || plan.places.some(({ faults }) => faults.some(hasTwoHolders))
  const code = codeOf(world, programs, mayBeTwo, async (id) => {
    await tell(runs.get(id) ?? panic(), CANCEL)
    // Until a processor has looked.
    await Bun.sleep(8)
  })

  /** The processor of each place. */
  const present: FaultyProcessor[] = []
  let isClosing = false
  async function fill(place: number, life = 0): Promise<void> {
    if (isClosing) return
    const { skewMs, faults } = plan.places[place] ?? { skewMs: 0, faults: [] }
    const fault = faults[life]
    const processor = await startFaulty(shared, code, { fault, skewMs })
    present[place] = processor
    void processor.gate.ended.then(() => fill(place, life + 1))
  }
  for (const place of plan.places.keys()) await fill(place)
  const waking = setInterval(() => {
    for (const { runner } of present) runner.wake()
  }, 3)

  /** As a message that is delivered again until a processor has handled it. */
  async function deliver(place: number, handle: (processor: FaultyProcessor) => Promise<unknown>): Promise<void> {
    for (let tries = place; ; tries++) {
      const processor = present[tries % present.length]
      if (!processor) throw new Error('There is no processor.')
      const handled = handle(processor).then(
        () => true,
        () => false,
      )
      if (await Promise.race([handled, processor.gate.ended.then(() => false)])) return
      await Bun.sleep(1)
    }
  }

  const request = (run: NewRun) => async (processor: FaultyProcessor) => {
    const { results, runner } = processor
    if (!(await results.find([run.id])).has(run.id)) await results.append([running(run)])
    if ((await results.find([run.id])).get(run.id)?.status === 'running') await runner.admit([run])
  }

  const told: RunInput[] = []
  const tell = (run: NewRun, name: string, more: Partial<RunInput> = {}) => {
    const input = { run: run.id, user: run.user, name, by: 'olga', atMs: Date.now(), ...more }
    told.push(input)
    return deliver(told.length, async (processor) => {
      await processor.runs.addInputs([input])
      processor.runner.wake()
    })
  }

  const at = (atMs: number, act: () => Promise<void>) => Bun.sleep(Math.max(0, startMs + atMs - Date.now())).then(act)

  /** Everything that comes for a run. */
  function comesFor(run: NewRun, program: Program): Promise<unknown>[] {
    const { ops, requestedAtMs, cancelledAtMs, cancelledIn } = program
    const answers = [...ops.entries()].flatMap(([index, op]) =>
      op.kind === 'signal' ? [{ ...op.answer, name: signalInput(nameOf(op, index)) }] : [],
    )
    return [
      ...requestedAtMs.map((atMs, index) => at(atMs, () => deliver(index, request(run)))),
      ...cancelledAtMs.map((atMs) => at(atMs, () => tell(run, CANCEL))),
      ...answers.map(({ approved, atMs, name }) => at(atMs, () => tell(run, name, { payload: { approved } }))),
      // A run has one input of a name, whoever sends it.
      ...(cancelledIn === undefined && cancelledAtMs.length === 0
        ? [at(20, () => tell(run, CANCEL, { user: 'eve' }))]
        : []),
    ]
  }

  /** What an operator decided on, by dead letter. */
  const decided = new Set<string>()
  async function decide(run: NewRun, { redrives }: Program): Promise<void> {
    const records = historyOf(run.id)
    const last = records.at(-1)
    if (last?.kind !== 'stuck') return
    const deadLetter = deadLetterOf(run, last)
    if (decided.has(deadLetter)) return
    decided.add(deadLetter)
    const before = records.filter(({ kind }) => kind === 'stuck').length
    const name = before <= redrives ? redriveInput(redriveId(deadLetter)) : abandonInput(deadLetter)
    await tell(run, name)
    await tell(run, name)
  }

  const used = async () =>
    (await store.results.used(['ana', 'bob'].map((user) => ({ user, limit: 'test', period: '2026-11-23' })))).reduce(
      (sum, amount) => sum + amount,
      0,
    )
  /** What counts is what succeeded, and what is still running. */
  async function checkUsed(): Promise<void> {
    const counting = async () =>
      [...(await store.results.find([...runs.keys()])).values()].filter(({ status }) => status !== 'failed')
    const before = await counting()
    const sum = await used()
    const after = await counting()
    if (sum > 100 * Math.max(before.length, after.length)) faults.push(`${sum} counts for ${before.length} operations`)
    if (sum < 100 * Math.min(before.length, after.length)) faults.push(`${sum} counts for ${after.length} operations`)
  }

  const isOver = async (id: string) =>
    (await store.runs.get(id))?.head.state === 'ended' && (await store.results.get(id))?.status !== 'running'
  async function untilAllAreOver(): Promise<void> {
    const deadlineMs = performance.now() + ENDED_WITHIN_MS
    const open = new Set(runs.keys())
    while (open.size > 0 && performance.now() < deadlineMs) {
      for (const [id, run] of runs) {
        const program = programs.get(id)
        if (program && open.has(id)) await decide(run, program)
        if (await isOver(id)) open.delete(id)
      }
      await checkUsed()
      await Bun.sleep(2)
    }
    for (const id of open)
      faults.push(`${id} does not end: ${shown(historyOf(id))}; ${JSON.stringify((await store.runs.get(id))?.head)}`)
  }

  try {
    const coming = [...runs].flatMap(([id, run]) => comesFor(run, programs.get(id) ?? panic()))
    await Promise.all([...coming, untilAllAreOver()])
    const outcomes = await Promise.all([...runs.keys()].map((id) => store.results.get(id)))
    const histories = [...runs.keys()].map(historyOf)
    for (const [index, run] of [...runs.values()].entries()) checkHistory(run, histories[index] ?? [], told)

    // What comes after the end changes nothing, and is put away.
    for (const run of runs.values()) {
      await deliver(0, request(run))
      await tell(run, CANCEL)
      await tell(run, signalInput('late'), { payload: { approved: true } })
      await tell(run, redriveInput(redriveId(deadLetterOf(run, { n: 0 }))))
      await tell(run, abandonInput(deadLetterOf(run, { n: 0 })))
    }
    for (let looks = 0; (await store.runs.unnoticed(1)).length > 0 && looks < 500; looks++) await Bun.sleep(2)
    for (const { run, name } of await store.runs.unnoticed(10)) faults.push(`${name} of ${run} is never noticed`)
    expectSame('The outcomes', outcomes, await Promise.all([...runs.keys()].map((id) => store.results.get(id))))
    expectSame('The histories', histories, [...runs.keys()].map(historyOf))
  } finally {
    clearInterval(waking)
    isClosing = true
    await Promise.all([...shared.processors.values()].map(({ close }) => close()))
  }

  function expectSame(what: string, before: unknown, after: unknown): void {
    if (!Bun.deepEquals(before, after)) faults.push(`${what} changed after the end`)
  }

  if (faults.length === 0) for (const run of runs.values()) await checkEnd(run)
  await checkUsed()
  await store.close()
  return faults

  function checkHistory(run: NewRun, records: readonly RunRecord[], inputs: readonly RunInput[]): void {
    const its = inputs.filter((input) => input.run === run.id && input.user === run.user)
    const fault = faultOfHistory(programs.get(run.id) ?? panic(), run, its, records, world.returned)
    if (fault !== undefined) faults.push(`${run.id}: ${fault}. Its history: ${shown(records)}`)
  }

  async function checkEnd(run: NewRun): Promise<void> {
    const { id } = run
    const program = programs.get(id) ?? panic()
    const records = historyOf(id)
    const wrong = (what: string) => void faults.push(`${id}: ${what}. Its history: ${shown(records)}`)
    const result = await store.results.get(id)
    const ended = records.findLast((record) => record.kind === 'ended')
    if (!ended || !result || result.status === 'running') return wrong('It has no outcome')
    const code = 'failure' in ended.outcome ? ended.outcome.failure.code : undefined
    if ((result.status === 'failed' ? result.error.code : undefined) !== code) wrong('Its result is not its outcome')
    if (Date.parse(result.completedAt) !== ended.atMs) wrong('Its result has another time than its end')

    const keysOf = (which: (op: Step) => boolean) =>
      program.ops.flatMap((op, index) => (op.kind === 'step' && which(op) ? [`${id}/${nameOf(op, index)}`] : []))
    const held = keysOf(({ undo }) => undo).filter((key) => world.holdings.get(key))
    const paid = keysOf(({ final }) => final).filter((key) => world.paid.has(key))
    if (code === undefined) {
      if (held.length !== keysOf(({ undo }) => undo).length) wrong('It succeeded, and holds less than it should')
      if (paid.length !== keysOf(({ final }) => final).length) wrong('It succeeded, and did not pay')
    } else if (code !== 'dead-lettered') {
      if (held.length > 0) wrong(`It failed, and still holds ${held}`)
      if (paid.length > 0 && code !== refused.failure.code) wrong(`It paid, and failed with ${code}`)
    }

    const head = (await store.runs.get(id))?.head
    if (head?.holder !== undefined || head?.published !== records.length) wrong(`Its head is ${JSON.stringify(head)}`)
    checkMessages(run, records, toReply(result, run), wrong)
  }

  function checkMessages(
    run: NewRun,
    records: readonly RunRecord[],
    reply: Outgoing,
    wrong: (what: string) => void,
  ): void {
    const sent = shared.published.filter(({ message }) => isOf(run.id, message))
    const textOf = (message: Outgoing) =>
      JSON.stringify([message.topic, message.key, headersOf(message)]) + message.value
    const texts = sent.map(({ message }) => textOf(message))
    const repliedAt = texts.indexOf(textOf(reply))
    if (repliedAt === -1) wrong('Nothing says what came of it')
    const expected = records.flatMap((record) => messagesOf(run, record))
    for (const message of expected) {
      const index = texts.indexOf(textOf(message))
      if (index === -1) wrong(`${idOf(message)} was not published`)
      else if (index > repliedAt) wrong(`${idOf(message)} was published after the reply`)
    }
    const known = new Set([reply, ...expected].map(textOf))
    for (const { message } of sent) if (!known.has(textOf(message))) wrong(`${idOf(message)} tells what did not happen`)
    // Of each publisher: progress in its order, until a crash of a publish makes it begin again.
    for (const [by, its] of Map.groupBy(sent, (each) => each.by)) {
      const first = [...new Set(its.map(({ message }) => textOf(message)))].map((text) =>
        [reply, ...expected].findIndex((each) => textOf(each) === text),
      )
      const ordered = first.map((index) => (index === 0 ? expected.length + 1 : index))
      if (ordered.some((index, place) => index < (ordered[place - 1] ?? 0))) wrong(`${by} published out of order`)
    }
  }
}

const headersOf = ({ headers }: Outgoing) => headers.map(([name, value]) => `${name}=${Buffer.from(value)}`)

function idOf(message: Outgoing): string {
  const decoded = decode(delivered(message))
  return 'unreadable' in decoded ? message.key : decoded.envelope.id
}

/** Of progress, replies, dead letters and what tells of them. */
function isOf(id: string, message: Outgoing): boolean {
  const subject = message.headers.find(([name]) => name === 'ce_subject')?.[1]
  return subject !== undefined && Buffer.from(subject).toString() === id && message.topic !== topics.requests
}

function newRun(id: string, { user, livesMs }: Program, nowMs: number): NewRun {
  const createdAtMs = livesMs === undefined ? nowMs : nowMs + livesMs - LONGEST_LIFE_MS
  return {
    id,
    user,
    type: sample.type,
    version: 1,
    input: sample.input(),
    facts: sample.facts,
    createdAt: new Date(createdAtMs).toISOString(),
    decidedAtMs: nowMs,
    decided: null,
    position: { partition: 0, offset: Number(id.replace(/\D/g, '')), timestampMs: nowMs },
  }
}

const counts = { limit: 'test', period: '2026-11-23', amount: 100 }

function running({ id, user, type, input, facts, createdAt, version }: NewRun): Result {
  return { id, user, type, input, facts, createdAt, version, status: 'running', decided: null, decidedAt: NOON, counts }
}

function panic(): never {
  throw new Error('There is no such program.')
}

/** Most of the time they wait. */
const AT_ONCE = 10

/**
 * Does many random plans.
 * @throws Error with what was wrong in the first plan in which something was, the plan, and the seed
 */
async function checkPlans(times: number, weaken?: (runs: Runs) => Runs): Promise<void> {
  const plans = fc.array(Plan, { minLength: AT_ONCE, maxLength: AT_ONCE })
  const holds = fc.asyncProperty(plans, async (plans) => {
    const found = await Promise.all(plans.map((plan) => faultsOf(plan, weaken)))
    for (const [index, faults] of found.entries())
      if (faults.length > 0) throw new Error([...faults, JSON.stringify(plans[index])].join('\n'))
  })
  // A smaller plan need not fail: what befalls whom when is not the same each time.
  const { failed, seed, errorInstance } = await fc.check(holds, { numRuns: times / AT_ONCE, endOnFailure: true })
  if (failed) throw new Error(`With the seed ${seed}: ${errorInstance}`)
}

test(
  'whatever befalls the processors, every run ends as its code says, is recorded once, and tells of it',
  () => checkPlans(isLong ? 1000 : 30),
  600_000,
)

test('a step that begins before the record of the one before is durable is found', async () => {
  const unwritten = (runs: Runs): Runs => ({
    ...runs,
    async append(records) {
      setTimeout(() => void runs.append(records).catch(() => {}), 4)
      return records.map(() => true)
    },
  })
  await expect(checkPlans(50, unwritten)).rejects.toThrow(/ begins (before|without) | goes on after /)
}, 60_000)
