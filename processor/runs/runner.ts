// Goes on with runs: those that this processor began, those that are due, and those whose holder died.

import type { Broker } from '@posta/common/broker/broker.ts'
import { operationTypes } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import { backoff, pause } from '@posta/common/service/backoff.ts'
import type { Component } from '@posta/common/service/component.ts'
import { unlessAborted, within } from '@posta/common/service/deadline.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { createHttp } from '@posta/common/service/external-http.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { Counter, Gauge, type Registry } from 'prom-client'
import type { PerformerSettings } from '../config.ts'
import type { AnyPerformer, Run as RunFunction } from '../performers/performer.ts'
import type { Performers } from '../performers/performers.ts'
import { toReply } from '../reply.ts'
import type { Outcome, Result, Results } from '../results/results.ts'
import { readHistory } from './history.ts'
import { createHolders } from './holders.ts'
import { factsOf, faultOf, outcomeOf } from './outcome.ts'
import { pass, type Stop, type Unplaced } from './pass.ts'
import { createPublisher } from './publisher.ts'
import { messagesOf } from './run-messages.ts'
import {
  CANCEL,
  type Head,
  type Kind,
  type NewRun,
  type Run,
  type RunInput,
  type RunRecord,
  type Runs,
} from './runs.ts'
import { together } from './together.ts'

const MAX_RUNS = 128
/** So that one user cannot take all places. */
const MAX_RUNS_PER_USER = 16
const LOOK_MS = 500
const MAX_TOGETHER = 500
const MAX_UNNOTICED = 1000
/** How often a holder may die without a new record before the run counts as what kills them. */
const MAX_CRASHES = 5
const MAX_PAGES = 8

/** Another processor recorded something at this place: the run went on there. */
class PlaceTaken extends Error {}

/** A run that this processor holds. */
interface Hold {
  run: Run
  /** What came for it, by name. */
  inputs: Map<string, RunInput>
  /** Resolves when it is held no longer. */
  readonly released: Promise<void>
}

export interface Runner extends Component {
  /**
   * Makes sure that the runs exist, and begins those that are new and for which there is room. Resolves once all of them
   * are stored.
   */
  admit(runs: readonly NewRun[]): Promise<void>
  /** Call it when inputs were stored. */
  wake(): void
}

export interface RunnerOptions {
  readonly runs: Runs
  readonly results: Pick<Results, 'get' | 'settle'>
  readonly broker: Pick<Broker, 'publish'>
  readonly performers: Performers
  readonly settings: PerformerSettings
  readonly log: Logger
  readonly metrics: Registry
  readonly deps: Deps
}

/** The code of each version of each operation in steps. */
function codeOf(performers: Performers): Map<string, { readonly kind: Kind; readonly code: RunFunction<Contract> }> {
  const all = new Map<string, { kind: Kind; code: RunFunction<Contract> }>()
  for (const type of operationTypes) {
    const performer: AnyPerformer = performers[type]
    const { version = 1, earlier = {} } = performer
    const add = (version: number, code: RunFunction<Contract>) =>
      all.set(kindKey({ type, version }), { kind: { type, version }, code })
    for (const [number, code] of Object.entries(earlier)) add(Number(number), code)
    if (performer.run) add(version, performer.run.bind(performer))
  }
  return all
}

const DEADLY = `${MAX_CRASHES} processors in a row died while they worked on it.`

const kindKey = ({ type, version }: Kind) => `${type} ${version}`

/**
 * Works on runs, at most 128 at once and 16 of one user. A run that waits is left to the store until it is due. Any number
 * of processors may share the store: see ARCHITECTURE.md, "An operation in steps".
 */
export function createRunner(options: RunnerOptions): Runner {
  const { runs, results, performers, settings, log, metrics, deps } = options
  const codes = codeOf(performers)
  const http = createHttp(deps)
  const kinds = [...codes.values()].map(({ kind }) => kind)
  const me = deps.newId()
  const held = new Map<string, Hold>()
  /** Runs that this processor is about to hold: they are in the store already, or will be. */
  const admitting = new Set<string>()
  const isHolding = () => held.size + admitting.size > 0
  const holders = createHolders({ runs, me, isHolding, lookMs: LOOK_MS, log, deps })
  const publisher = createPublisher(options.broker, log)
  const appendTogether = together(runs.append, MAX_TOGETHER)
  const settleTogether = together(async (outcomes: readonly (Result & Outcome)[]) => {
    await results.settle(outcomes)
    return outcomes.map(() => true)
  }, MAX_TOGETHER)
  const stopping = new AbortController()
  const closing = new AbortController()
  let woken = new AbortController()
  let paused: ReadonlySet<string> = new Set()
  let lookedAtMs = Number.NEGATIVE_INFINITY
  let inputsCame = true
  /** The last one that was looked at; undefined: the next look begins with the oldest. */
  let lastUnnoticed: RunInput | undefined
  let failure: unknown
  let running: Promise<unknown> | undefined

  const settled = new Counter({
    name: 'posta_runs_settled_total',
    help: 'Runs whose outcome became the result, by status.',
    labelNames: ['type', 'status'],
    registers: [metrics],
  })
  const recorded = new Counter({
    name: 'posta_run_records_total',
    help: 'What this processor recorded of runs: done, undone, stuck and so on.',
    labelNames: ['type', 'kind'],
    registers: [metrics],
  })
  new Gauge({
    name: 'posta_runs_held',
    help: 'Runs that this processor is working on.',
    registers: [metrics],
    collect() {
      this.set(held.size)
    },
  })

  function wake(): void {
    inputsCame = true
    woken.abort()
  }
  const room = () => MAX_RUNS - held.size - admitting.size

  /** How many runs of each user this processor holds. */
  function heldPerUser(): Map<string, number> {
    const counts = new Map<string, number>()
    for (const { run } of held.values()) counts.set(run.user, (counts.get(run.user) ?? 0) + 1)
    return counts
  }

  const busyUsers = () => [...heldPerUser()].filter(([, count]) => count >= MAX_RUNS_PER_USER).map(([user]) => user)

  function hold(run: Run, fresh: boolean): void {
    const released = Promise.withResolvers<void>()
    held.set(run.id, { run, inputs: new Map(), released: released.promise })
    void work(run.id, fresh).finally(() => {
      held.delete(run.id)
      released.resolve()
      woken.abort()
    })
  }

  /** Takes a run that nobody holds, or whose holder died. False where another was faster. */
  async function take(run: Run): Promise<boolean> {
    if (held.has(run.id) || admitting.has(run.id)) return false
    admitting.add(run.id)
    try {
      await holders.beatFirst()
      const taken = await runs.take(run, me)
      if (!taken) return false
      const { crashes = 0 } = taken.head
      const holderDied = run.head.holder !== undefined && run.head.holder !== me
      hold(holderDied ? { ...taken, head: { ...taken.head, crashes: crashes + 1 } } : taken, false)
      return true
    } finally {
      admitting.delete(run.id)
    }
  }

  /** Goes on with a run that this processor holds, until it waits, is stuck or has ended, or is another's. */
  async function work(id: string, fresh: boolean): Promise<void> {
    const pauses = backoff({ firstMs: 100, longestMs: 2000 })
    let isFresh = fresh
    while (!closing.signal.aborted) {
      const mine = held.get(id)
      if (!mine) return
      try {
        await goOn(mine, isFresh)
        return
      } catch (error) {
        if (closing.signal.aborted) return
        if (!(error instanceof PlaceTaken)) {
          log.warn({ err: error, run: id }, 'a run cannot go on at the moment; trying again')
          await pauses.pause(closing.signal)
        }
        // While the store does not answer, the run stays with this processor.
        if (!(await isStillMine(mine.run).catch(() => true))) return
      }
      isFresh = false
    }
  }

  async function isStillMine({ id, head }: Run): Promise<boolean> {
    const now = await runs.get(id)
    return now?.head.holder === me && now.head.epoch === head.epoch
  }

  /** One pass, and what follows from it. */
  async function goOn(mine: Hold, fresh: boolean): Promise<void> {
    const { run } = mine
    const records = fresh ? [] : [...(await runs.history(run.id))]
    const isDeadly = await countCrash(run, records.length)
    const inputs = await inputsOf(run)
    mine.inputs = new Map(inputs.map((input) => [input.name, input]))
    let told = Promise.resolve()
    const tell = (record: RunRecord) => {
      const messages = record.n < run.head.published ? [] : messagesOf(run, record)
      if (messages.length > 0) told = publisher.publish(messages)
    }
    for (const record of records) tell(record)

    const stop = await pass({
      run,
      code: isDeadly ? () => Promise.reject(new Error(DEADLY)) : codeFor(run),
      history: readHistory(records),
      inputs: mine.inputs,
      append: async (unplaced) => {
        const record = await append(run, unplaced, records)
        records.push(record)
        tell(record)
        return record
      },
      context: () => ({ ...factsOf(run), http, settings: settings.get(run.type) ?? {} }),
      faultOf: (outcome) => faultOf(run, outcome),
      now: deps.now,
      closing: closing.signal,
    })

    if (stop.kind === 'ended') await settle(run, records, told)
    else await untilClosing(told)
    const head = headAfter(run, stop, records.length, deps.now())
    if (!(await runs.put(run, head))) throw new PlaceTaken()
    // What came meanwhile may not have been looked at: it makes the run due again.
    if (inputs.length > 0) await runs.notice(inputs)
  }

  /** Stores that a holder of the run died. True: it happened so often without a new record that the run may be the reason. */
  async function countCrash({ head, ...run }: Run, records: number): Promise<boolean> {
    if (head.crashes === undefined) return false
    const crashes = head.crashedAt === records ? head.crashes : 1
    await runs.put({ ...run, head }, { ...head, crashes, crashedAt: records })
    return crashes >= MAX_CRASHES
  }

  const codeFor = (run: Run): RunFunction<Contract> =>
    codes.get(kindKey(run))?.code ?? (() => Promise.reject(new Error('This processor has no such version.')))

  const inputsOf = async (run: Run) => (await runs.inputs([run.id])).filter(({ user }) => user === run.user)

  /** Times never go back in a history, though the clocks of two processors differ. */
  async function append(run: Run, unplaced: Unplaced, before: readonly RunRecord[]): Promise<RunRecord> {
    const atMs = Math.max(deps.now(), before.at(-1)?.atMs ?? run.decidedAtMs)
    const record: RunRecord = { ...unplaced, n: before.length, atMs }
    if (!(await appendTogether({ run: run.id, record }))) throw new PlaceTaken()
    recorded.inc({ type: run.type, kind: record.kind })
    return record
  }

  /** The outcome becomes the result, and then the reply. Both are the same however often this is done. */
  async function settle(run: Run, records: readonly RunRecord[], told: Promise<void>): Promise<void> {
    await untilClosing(told)
    const before = await results.get(run.id)
    const outcome = outcomeOf(run, records, before)
    if (before?.status === 'running') {
      await settleTogether(outcome)
      settled.inc({ type: outcome.type, status: outcome.status })
    }
    // What is settled stays as it is, so the reply follows from that.
    const reply = toReply(before && before.status !== 'running' ? before : outcome, run)
    await untilClosing(publisher.publish([reply]))
  }

  /** A run that has ended settles what a late redrive of its request made running again. */
  async function settleAgain(asked: readonly NewRun[]): Promise<void> {
    for (const { id } of asked) {
      const run = await runs.get(id)
      if (run?.head.state === 'ended') await settle(run, await runs.history(id), Promise.resolve())
    }
  }

  /** A publish may never resolve once the processor closes. The head then says what is still to be told. */
  const untilClosing = (told: Promise<void>) => unlessAborted(told, closing.signal)

  async function look(): Promise<void> {
    const isDue = deps.monotonicMs() - lookedAtMs >= LOOK_MS / 2
    if (isDue) {
      lookedAtMs = deps.monotonicMs()
      paused = new Set(await runs.paused())
      await takeFromTheDead()
    }
    if (isDue || inputsCame) {
      inputsCame = false
      await noticeInputs()
    }
    for (let pages = 0; pages < MAX_PAGES && room() > 0 && !stopping.signal.aborted; pages++) {
      const exceptUsers = busyUsers()
      const due = await runs.due({ nowMs: deps.now(), kinds, exceptUsers, limit: Math.min(room(), MAX_RUNS_PER_USER) })
      let taken = 0
      for (const run of due) {
        if (room() <= 0 || busyUsers().includes(run.user)) continue
        if (await take(run)) taken += 1
      }
      if (taken === 0) return
    }
  }

  /** Takes the runs of holders that died, and its own if it does not know that it holds them: a write that rejected may have
   * been done. */
  async function takeFromTheDead(): Promise<void> {
    for (const { holder, runs: ids } of await holders.look())
      await takeAll(holder, holder === me ? ids.filter((id) => !held.has(id) && !admitting.has(id)) : ids)
  }

  async function takeAll(holder: string, ids: readonly string[]): Promise<void> {
    let left = ids.length
    for (const id of ids) {
      const run = room() > 0 ? await runs.get(id) : undefined
      // What has no place now is taken at the next look.
      if (!run || run.head.holder !== holder || !codes.has(kindKey(run)) || busyUsers().includes(run.user)) continue
      if (await take(run)) left -= 1
    }
    if (ids.length === left) return
    log.info({ holder, runs: ids.length - left }, 'runs were taken over')
  }

  /** Looks at the next ones, so that those which have to wait do not hold the others back. */
  async function noticeInputs(): Promise<void> {
    const unnoticed = await runs.unnoticed(MAX_UNNOTICED, lastUnnoticed)
    lastUnnoticed = unnoticed.length < MAX_UNNOTICED ? undefined : unnoticed.at(-1)
    const known: RunInput[] = []
    for (const [id, inputs] of Map.groupBy(unnoticed, ({ run }) => run)) {
      const mine = held.get(id)
      if (mine) for (const input of inputs) if (input.user === mine.run.user) mine.inputs.set(input.name, input)
      if (mine || admitting.has(id)) continue
      const run = await runs.get(id)
      // Whoever creates the run later reads the inputs then.
      const idle = run && run.head.state !== 'ended' ? inputs.filter(({ user }) => user === run.user) : []
      known.push(...inputs.filter((input) => !idle.includes(input)))
      if (run && idle.length > 0 && mayWake(run, idle)) await take(run)
    }
    if (known.length > 0) await runs.notice(known)
  }

  /** Whether inputs make a run that nobody holds go on now. One that a pause holds back goes on to be cancelled alone. */
  function mayWake(run: Run, inputs: readonly RunInput[]): boolean {
    const { holder, epoch } = run.head
    const isHeldBack = epoch === 0 && paused.has(run.type) && !inputs.some(({ name }) => name === CANCEL)
    const hasRoom = room() > 0 && !busyUsers().includes(run.user)
    return holder === undefined && codes.has(kindKey(run)) && hasRoom && !isHeldBack
  }

  async function loop(): Promise<void> {
    const pauses = backoff({ firstMs: 100, longestMs: 2000 })
    while (!stopping.signal.aborted) {
      woken = new AbortController()
      try {
        await look()
        if (failure) log.info('runs can be read again')
        failure = undefined
        pauses.reset()
        const nextMs = room() > 0 ? await runs.nextDueMs(deps.now()) : undefined
        const untilDueMs = nextMs === undefined ? LOOK_MS : Math.max(1, nextMs - deps.now())
        await pause(Math.min(LOOK_MS, untilDueMs), AbortSignal.any([stopping.signal, woken.signal]))
      } catch (error) {
        if (!failure) log.warn({ err: error }, 'runs cannot be read; trying again')
        failure = error
        await pauses.pause(stopping.signal)
      }
    }
  }

  return {
    name: 'runs',
    async start() {
      if (kinds.length === 0) return
      running = loop()
      holders.start()
    },
    check() {
      const reason = failure ?? publisher.failure()
      if (reason) throw reason
    },
    wake,
    async admit(asked) {
      if (asked.length === 0) return
      const nowMs = deps.now()
      const perUser = heldPerUser()
      const mine: Run[] = []
      const all = asked.map((run): Run => {
        const own = perUser.get(run.user) ?? 0
        const hasRoom = mine.length < room() && own < MAX_RUNS_PER_USER && codes.has(kindKey(run))
        const begins = running !== undefined && hasRoom && !paused.has(run.type)
        const created = { ...run, head: newHead(nowMs, begins ? me : undefined) }
        if (begins) {
          perUser.set(run.user, own + 1)
          mine.push(created)
        }
        return created
      })
      const fresh = mine.filter(({ id }) => !held.has(id))
      for (const { id } of fresh) admitting.add(id)
      try {
        if (fresh.length > 0) await holders.beatFirst()
        const created = await runs.create(all)
        for (const run of fresh) if (created.has(run.id)) hold(run, true)
        await settleAgain(asked.filter(({ id }) => !created.has(id) && !held.has(id)))
      } finally {
        for (const { id } of fresh) admitting.delete(id)
      }
      wake()
    },
    async close(graceMs) {
      stopping.abort()
      wake()
      await running
      const releases = () => Promise.all([...held.values()].map(({ released }) => released))
      // What is under way may come to its next wait. Then it is told to stop, and is left to others.
      await within(releases(), graceMs / 2, 'The steps under way').catch(() => {})
      closing.abort(new Error('The processor closes.'))
      publisher.close()
      await within(releases(), graceMs / 2, 'Leaving the runs').catch(() => {})
      await holders.close()
    },
  }
}

/** The head of a new run: held, or waiting for a processor that has room. */
function newHead(dueAtMs: number, holder: string | undefined): Head {
  const idle = { dueAtMs, attempts: 0, failures: 0, published: 0 }
  return holder === undefined ? { ...idle, state: 'ready', epoch: 0 } : { ...idle, state: 'running', holder, epoch: 1 }
}

/** The head once a pass has stopped, and all its records were told. */
function headAfter({ head }: Run, stop: Stop, published: number, nowMs: number): Head {
  const { epoch } = head
  const idle = { epoch, attempts: 0, failures: 0, published }
  if (stop.kind === 'ended') return { ...idle, state: 'ended', dueAtMs: nowMs }
  const { kind, ...rest } = stop
  if (kind === 'stuck') return { ...idle, ...rest, state: 'stuck' }
  return { ...idle, ...rest, state: rest.dueAtMs <= nowMs ? 'ready' : 'waiting' }
}
