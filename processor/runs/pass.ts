import { redriveId } from '@posta/common/messages/dead-letter.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import { retryAfterMs } from '@posta/common/service/external-http.ts'
import * as v from 'valibot'
import {
  type Attempt,
  type Failure,
  type Json,
  Later,
  type RunContext,
  type Run as RunFunction,
  type StepOptions,
} from '../performers/performer.ts'
import type { Entry, History } from './history.ts'
import { readJson } from './read-json.ts'
import { deadLetterOf } from './run-messages.ts'
import {
  abandonInput,
  CANCEL,
  expiresAtMs,
  LONGEST_LIFE_MS,
  NEVER_MS,
  type Run,
  type RunInput,
  type RunRecord,
  redriveInput,
  signalInput,
} from './runs.ts'
import { withinTime } from './within-time.ts'

const MAX_RUN_BYTES = 256 * 1024
const MAX_STEPS = 1000
const MAX_REASON_CHARACTERS = 500
/** Of a step's policy, where it says nothing else. */
const usual = { timeoutMs: 30_000, attempts: 20, firstPauseMs: 1000, longestPauseMs: 60 * 60 * 1000 }
/** Undefined: the answer did not come in time. */
const Payload = v.nullish(v.record(v.string(), v.unknown()))
/** No slash: `<step>/undo` is the name of an undo. */
const NAME = /^[\x21-\x2e\x30-\x7e]{1,80}$/

/** What a record says, before it has a number and a time. */
export type Unplaced = RunRecord extends infer R ? (R extends RunRecord ? Omit<R, 'n' | 'atMs'> : never) : never

/** Why a pass ended. */
export type Stop =
  | {
      /** It goes on at `dueAtMs`, or when an input comes. */
      readonly kind: 'later'
      readonly dueAtMs: number
      readonly step: string
      readonly forSignal?: boolean
      readonly attempts: number
      readonly failures: number
      readonly reason?: string
    }
  | {
      readonly kind: 'stuck'
      readonly reason: string
      readonly dueAtMs: number
      /** Where attempts at a step are used up. */
      readonly step?: string | undefined
      readonly attempts?: number
      readonly failures?: number
    }
  | { readonly kind: 'ended' }

interface PassOptions {
  readonly run: Run
  readonly code: RunFunction<Contract>
  readonly history: History
  /** By name. It may grow while the pass is under way. */
  readonly inputs: ReadonlyMap<string, RunInput>
  /**
   * Records durably. Resolves to the record.
   * @throws where it could not, or another holder recorded something else there: the pass then rejects with this error
   */
  readonly append: (record: Unplaced) => Promise<RunRecord>
  /** The rest of the context. What it throws, the run's code throws. */
  readonly context: () => Pick<RunContext<Contract>, 'input' | 'facts' | 'settings' | 'http'>
  /** What is wrong with an outcome, in a sentence; undefined if nothing is. */
  readonly faultOf: (outcome: Awaited<ReturnType<RunFunction<Contract>>>) => string | undefined
  readonly now: () => number
  /** Aborts when the processor closes. */
  readonly closing: AbortSignal
}

/**
 * Goes on with a run, as far as it comes: calls its code from the top, gives back what is recorded, does the next step, and
 * so on until the run waits, is stuck or has ended. Whatever it did before it rejects is recorded, or is done again.
 */
export async function pass(options: PassOptions): Promise<Stop> {
  const { run, code, history, inputs, now, closing, faultOf } = options
  const { entries } = history
  const stopped = Promise.withResolvers<Stop>()
  let over = false
  let failing = history.failing?.failure
  let pastReturn = history.pastReturn
  let lastAtMs = run.decidedAtMs
  let bytes = 0
  let index = 0
  let busy: string | undefined
  let randoms = 0
  /** A redrive came: attempts are counted anew. */
  let resumed = false
  const names = new Set<string>()
  const undos: { step: string; undo: (given: Attempt) => Promise<unknown>; policy: StepOptions<never> }[] = []

  /** Nothing of the run's code goes on after a stop: what it awaits never comes. */
  const never = <T>() => new Promise<T>(() => {})

  function stop<T>(why: Stop): Promise<T> {
    over = true
    stopped.resolve(why)
    return never()
  }

  /** Stops until a time, or until the run times out. */
  function later<T>(dueAtMs: number, at: Omit<Extract<Stop, { kind: 'later' }>, 'kind' | 'dueAtMs'>): Promise<T> {
    return stop({ kind: 'later', dueAtMs: Math.min(dueAtMs, timesOutAtMs()), ...at })
  }

  /** Once the pass is over, only what ended it is recorded. */
  async function append(record: Unplaced): Promise<RunRecord> {
    if (over) return never()
    const appended = await options.append(record)
    // Of other records a later pass does not know at which call they came.
    if (appended.kind === 'done') lastAtMs = appended.atMs
    return appended
  }

  async function stuck<T>(why: string, at: { step?: string; attempts?: number; failures?: number } = {}): Promise<T> {
    if (over) return never()
    const reason = why.slice(0, MAX_REASON_CHARACTERS)
    // An operator gave it up already: what could not be undone is left to them.
    if (failing?.code === abandoned.code) return giveUp()
    over = true
    await options.append({ kind: 'stuck', reason })
    return stop({ kind: 'stuck', reason, dueAtMs: timesOutAtMs(), ...at })
  }

  async function giveUp<T>(): Promise<T> {
    over = true
    await options.append({ kind: 'ended', outcome: { failure: abandoned } })
    return stop({ kind: 'ended' })
  }

  /** When time alone makes it fail. */
  const timesOutAtMs = () => (failing || pastReturn ? NEVER_MS : expiresAtMs(run))

  /** Why the run has to fail, though its code does not say so. Undefined if it need not, or must not any more. */
  function interruption(): Failure<Contract>['failure'] | undefined {
    if (failing || pastReturn) return undefined
    if (inputs.has(CANCEL)) return { code: 'cancelled', message: 'It was cancelled, and what it had done was undone.' }
    if (now() >= expiresAtMs(run))
      return { code: 'timed-out', message: 'It did not end in time, and what it had done was undone.' }
    return undefined
  }

  /** Whether the run is failing, by now. */
  async function fails(): Promise<boolean> {
    const failure = interruption()
    if (failure) await fail(failure)
    return failing !== undefined
  }

  async function fail(failure: Failure<Contract>['failure']): Promise<void> {
    await append({ kind: 'failing', failure })
    failing = failure
  }

  /** Undoes what was done, the last first, and ends the run. */
  async function unwind<T>(): Promise<T> {
    if (!failing) throw new Error('Only a run that fails is undone.')
    for (const { step, undo, policy } of undos.toReversed()) {
      if (history.undone.has(step)) continue
      await attempt(`${step}/undo`, undo, policy)
      await append({ kind: 'undone', step })
    }
    await append({ kind: 'ended', outcome: { failure: failing } })
    return stop({ kind: 'ended' })
  }

  /** Makes one attempt, and resolves to its result. If it fails or is to be called later, the pass stops. */
  async function attempt(
    step: string,
    work: (given: Attempt) => Promise<unknown>,
    policy: StepOptions<never>,
  ): Promise<Json | undefined> {
    const { timeoutMs, attempts: most, firstPauseMs, longestPauseMs } = { ...usual, ...policy }
    if (![timeoutMs, firstPauseMs, longestPauseMs].every(isDuration))
      return stuck(`A time of ${step} cannot be kept: ${NO_DURATION}`)
    const before = run.head.step === step && !resumed ? run.head : { attempts: 0, failures: 0 }
    const attempts = before.attempts + 1
    let value: unknown
    try {
      value = await withinTime(timeoutMs, closing, (signal) =>
        work({ idempotencyKey: `${run.id}/${step}`, attempt: attempts, signal }),
      )
    } catch (error) {
      const reason = (error instanceof Error ? error.message : String(error)).slice(0, MAX_REASON_CHARACTERS)
      if (closing.aborted)
        return stop({ kind: 'later', dueAtMs: now(), step, attempts, failures: before.failures, reason })
      const failures = before.failures + 1
      if (failures >= most) return stuck(`${step} failed ${failures} times: ${reason}`, { step, attempts, failures })
      const wantedMs = Math.max(firstPauseMs * 2 ** Math.min(failures - 1, 40), retryAfterMs(error, now()))
      const pauseMs = Math.min(wantedMs, longestPauseMs)
      return later(now() + pauseMs, { step, attempts, failures, reason })
    }
    if (value instanceof Later) {
      if (!isDuration(value.delayMs))
        return stuck(`The time after which ${step} is to be called cannot be kept: ${NO_DURATION}`)
      return later(now() + value.delayMs, { step, attempts, failures: 0 })
    }
    return asJson(step, value)
  }

  async function asJson(step: string, value: unknown): Promise<Json | undefined> {
    const read = readJson(value)
    if ('fault' in read) return stuck(`The result of ${step} ${read.fault}`)
    bytes += read.bytes
    if (bytes > MAX_RUN_BYTES) return stuck(`The results of its steps have more than ${MAX_RUN_BYTES} bytes together.`)
    return read.value
  }

  /** Runs one call of the run's code: what is recorded of it is its `entry`. */
  function call<T>(name: string, work: (entry: Entry | undefined) => Promise<T>): Promise<T> {
    if (over) return never()
    const entry = entries[index]
    const fault = faultOfCall(name, entry)
    if (fault !== undefined) return rejecting(() => stuck(fault))
    busy = name
    names.add(name)
    return rejecting(async () => {
      const result = await work(entry)
      if (entry?.done) lastAtMs = entry.done.atMs
      busy = undefined
      index += 1
      return result
    })
  }

  function faultOfCall(name: string, entry: Entry | undefined): string | undefined {
    if (busy !== undefined)
      return `${name} was called while ${busy} was under way. A run does one thing at a time: await each call.`
    if (!NAME.test(name)) return 'The name of a step has 1 to 80 visible ASCII characters other than a slash.'
    if (names.has(name)) return `Two steps have the name ${name}.`
    if (names.size >= MAX_STEPS) return `A run has at most ${MAX_STEPS} steps.`
    if (entry && entry.step !== name)
      return `The code of version ${run.version} does not match what is recorded: it calls ${name} where ${entry.step} is recorded.`
    return undefined
  }

  /** An error of the store ends the pass. The run's code must not see it, since it would decide by it. */
  async function rejecting<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      over = true
      stopped.reject(error)
      return never()
    }
  }

  function recorded(result: unknown): Json | undefined {
    const read = readJson(result)
    if ('fault' in read) throw new Error(`A recorded result ${read.fault}`)
    bytes += read.bytes
    return read.value
  }

  async function wait(name: string, entry: Entry | undefined, ms: number, forSignal: boolean): Promise<'over'> {
    if (!isDuration(ms)) return stuck(`The time that ${name} is to wait cannot be kept: ${NO_DURATION}`)
    const untilMs = Math.min(now() + ms, forSignal ? expiresAtMs(run) : Number.POSITIVE_INFINITY)
    const endMs = entry?.waiting?.untilMs ?? untilMs
    if (!entry?.waiting) await append({ kind: 'waiting', step: name, untilMs: endMs, forSignal })
    if (now() >= endMs) return 'over'
    return later(endMs, { step: name, forSignal, attempts: 0, failures: 0 })
  }

  const { id, user, createdAt } = run
  const calls: Omit<RunContext<Contract>, 'input' | 'facts' | 'settings' | 'http' | 'decided'> = {
    id,
    user,
    createdAt,
    now: () => lastAtMs,
    random: () => randomOf(`${id}/${randoms++}`),

    // biome-ignore lint/suspicious/noConfusingVoidType: a step may return nothing
    step: <Result extends Json | undefined | void>(
      name: string,
      work: (given: Attempt) => Promise<Result | Later>,
      policy: StepOptions<Result> = {},
    ) =>
      call(name, async (entry) => {
        const { undo, final = false } = policy
        const isDone = entry?.done !== undefined
        // What started may have had its effect. Before it can be undone it is done, under the same key.
        if (!isDone && (await fails()) && !(entry?.started && undo)) return unwind<Result>()
        if (!isDone && !entry?.started && (undo || final)) {
          await append({ kind: 'started', step: name, final })
          pastReturn ||= final
        }
        const json = isDone ? recorded(entry.done?.result) : await attempt(name, work, policy)
        if (!isDone) await append({ kind: 'done', step: name, result: json })
        // What `work` of this name returned. The code of a version does not change, so it is of the same type.
        const result = json as Result
        if (undo)
          undos.push({
            step: name,
            // Its result is not kept, but it may be called later.
            async undo(given) {
              const answer = await undo(result, given)
              return answer instanceof Later ? answer : undefined
            },
            policy,
          })
        return result
      }),

    sleep: (name, ms) =>
      call(name, async (entry) => {
        if (entry?.done) return
        if (await fails()) return unwind<void>()
        await wait(name, entry, ms, false)
        await append({ kind: 'done', step: name, result: null })
      }),

    signal: (name, { withinMs = LONGEST_LIFE_MS } = {}) =>
      call(name, async (entry) => {
        // Some stores keep null for what is absent.
        if (entry?.done) return v.parse(Payload, entry.done.result) ?? undefined
        if (await fails()) return unwind<never>()
        const given = inputs.get(signalInput(name))
        if (!given) await wait(name, entry, withinMs, true)
        await append({ kind: 'done', step: name, result: given?.payload })
        return given?.payload
      }),
  }

  /** What to do about a run that is stuck. False: nothing yet. */
  async function unstick(): Promise<boolean> {
    if (!history.stuck) return true
    const deadLetter = deadLetterOf(run, history.stuck)
    if (inputs.has(abandonInput(deadLetter))) {
      // What cannot be undone, or must not be any more, is left to the operator.
      if (failing || pastReturn) return giveUp()
      await fail(abandoned)
      return true
    }
    if (inputs.has(redriveInput(redriveId(deadLetter)))) {
      await append({ kind: 'resumed' })
      resumed = true
      return true
    }
    return failing === undefined && fails()
  }

  async function end(): Promise<void> {
    const decided = readJson(run.decided)
    if ('fault' in decided) return stuck(`What decide said ${decided.fault}`)
    const outcome = await Promise.try(() =>
      code({ ...options.context(), ...calls, decided: decided.value ?? null }),
    ).catch((error: unknown) => ({
      fault: `Its code threw: ${error instanceof Error ? error.message : String(error)}`,
    }))
    if (over) return
    if (busy !== undefined) return stuck(`It returned while ${busy} was under way: await each call.`)
    if ('fault' in outcome) return stuck(outcome.fault)
    if (index < entries.length) return stuck(`Its code returned before ${entries[index]?.step}, which is recorded.`)
    if (failing) return unwind()
    const fault = faultOf(outcome)
    if (fault !== undefined) return stuck(fault)
    if ('failure' in outcome) {
      await fail(outcome.failure)
      return unwind()
    }
    await append({ kind: 'ended', outcome: { output: outcome.output, lookup: outcome.lookup } })
    return stop({ kind: 'ended' })
  }

  void rejecting(async () => {
    if (history.ended) return stop({ kind: 'ended' })
    if (history.stuck && !(await unstick())) {
      const { reason } = history.stuck
      const { step, attempts, failures } = run.head
      return stop({ kind: 'stuck', reason, dueAtMs: timesOutAtMs(), step, attempts, failures })
    }
    return end()
  })
  return stopped.promise
}

const NO_DURATION = 'it is no number of ms from 0 to 30 days.'

const isDuration = (ms: number) => Number.isFinite(ms) && ms >= 0 && ms <= LONGEST_LIFE_MS

const abandoned = {
  code: 'dead-lettered',
  message: 'It could not be done, and an operator discarded it.',
} as const

/** From 0 to 1, without 1. The same text gives the same number. */
function randomOf(text: string): number {
  const digest = new Bun.CryptoHasher('sha256').update(text).digest()
  return digest.readUIntBE(0, 6) / 2 ** 48
}
