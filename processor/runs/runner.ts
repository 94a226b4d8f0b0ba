// Goes on with runs: those that this processor began, those that are due, and those whose holder died.

import type { Broker } from '@posta/common/broker/broker.ts'
import type { Contracts } from '@posta/common/operations/catalog.ts'
import { backoff, pause } from '@posta/common/service/backoff.ts'
import type { Component } from '@posta/common/service/component.ts'
import { within } from '@posta/common/service/deadline.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { Gauge, type Registry } from 'prom-client'
import type { PerformerSettings } from '../config.ts'
import type { Performers } from '../performers/performers.ts'
import type { Results } from '../results/results.ts'
import { codeOf } from './code.ts'
import { createGoOn, type Held, PlaceTaken } from './go-on.ts'
import { createHolders } from './holders.ts'
import { createPublisher } from './publisher.ts'
import { CANCEL, type Head, type NewRun, type Run, type RunInput, type Runs } from './runs.ts'

const MAX_RUNS = 128
/** So that one user cannot take all places. */
const MAX_RUNS_PER_USER = 16
const LOOK_MS = 500
const MAX_UNNOTICED = 1000
const MAX_PAGES = 8

interface Hold extends Held {
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
  /** Those of the catalog by default. */
  readonly contracts?: Contracts
  readonly performers: Performers
  readonly settings: PerformerSettings
  readonly log: Logger
  readonly metrics: Registry
  readonly deps: Deps
}

/**
 * Works on runs, at most 128 at once and 16 of one user. A run that waits is left to the store until it is due. Any number
 * of processors may share the store: see ARCHITECTURE.md, "An operation in steps".
 */
export function createRunner(options: RunnerOptions): Runner {
  const { runs, performers, log, metrics, deps } = options
  const codes = codeOf(performers)
  const me = deps.newId()
  const held = new Map<string, Hold>()
  /** Runs that this processor is about to hold: they are in the store already, or will be. */
  const admitting = new Set<string>()
  const isHolding = () => held.size + admitting.size > 0
  const holders = createHolders({ runs, me, isHolding, lookMs: LOOK_MS, log, deps })
  const publisher = createPublisher(options.broker, log)
  const stopping = new AbortController()
  const closing = new AbortController()
  const { goOn, settleAgain } = createGoOn({ ...options, publisher, codes, closing: closing.signal })
  let woken = new AbortController()
  let paused: ReadonlySet<string> = new Set()
  let lookedAtMs = Number.NEGATIVE_INFINITY
  let inputsCame = true
  /** The last one that was looked at; undefined: the next look begins with the oldest. */
  let lastUnnoticed: RunInput | undefined
  let failure: unknown
  let running: Promise<unknown> | undefined

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
      const due = await runs.due({
        nowMs: deps.now(),
        kinds: codes.kinds,
        exceptUsers,
        limit: Math.min(room(), MAX_RUNS_PER_USER),
      })
      let taken = 0
      for (const run of due) {
        if (room() <= 0 || busyUsers().includes(run.user)) continue
        if (await take(run)) taken += 1
      }
      if (taken === 0) return
    }
  }

  /**
   * Takes the runs of holders that died, and its own if it does not know that it holds them: a write that rejected may have
   * been done.
   */
  async function takeFromTheDead(): Promise<void> {
    for (const { holder, runs: ids } of await holders.look())
      await takeAll(holder, holder === me ? ids.filter((id) => !held.has(id) && !admitting.has(id)) : ids)
  }

  async function takeAll(holder: string, ids: readonly string[]): Promise<void> {
    let left = ids.length
    for (const id of ids) {
      const run = room() > 0 ? await runs.get(id) : undefined
      // What has no place now is taken at the next look.
      if (!run || run.head.holder !== holder || !codes.has(run) || busyUsers().includes(run.user)) continue
      if (await take(run)) left -= 1
    }
    if (ids.length === left) return
    log.info({ holder, runs: ids.length - left }, 'runs were taken over')
  }

  /** Looks at the next ones, so that those which have to wait do not hold the others back. */
  async function noticeInputs(): Promise<void> {
    const unnoticed = await runs.unnoticed(MAX_UNNOTICED, lastUnnoticed)
    lastUnnoticed = unnoticed.length < MAX_UNNOTICED ? undefined : unnoticed.at(-1)
    const others = new Map<string, RunInput[]>()
    for (const [id, inputs] of Map.groupBy(unnoticed, ({ run }) => run)) {
      const mine = held.get(id)
      if (mine) for (const input of inputs) if (input.user === mine.run.user) mine.inputs.set(input.name, input)
      if (!mine && !admitting.has(id)) others.set(id, inputs)
    }
    if (others.size === 0) return
    const found = new Map((await runs.getMany([...others.keys()])).map((run) => [run.id, run]))
    const known: RunInput[] = []
    for (const [id, inputs] of others) {
      const run = found.get(id)
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
    return holder === undefined && codes.has(run) && hasRoom && !isHeldBack
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
        const nextMs = room() > 0 ? await runs.nextDueMs(deps.now(), codes.kinds) : undefined
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
      if (codes.kinds.length === 0) return
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
        const hasRoom = mine.length < room() && own < MAX_RUNS_PER_USER && codes.has(run)
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
        for (const { id } of asked) if (!created.has(id) && !held.has(id)) await settleAgain(id)
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
