// One run: goes on with it as far as it comes, and does what follows from that.
import { type Contracts, catalog } from '@posta/common/operations/catalog.ts'
import { unlessAborted } from '@posta/common/service/deadline.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { createHttp } from '@posta/common/service/external-http.ts'
import { Counter, type Registry } from 'prom-client'
import type { PerformerSettings } from '../config.ts'
import { toReply } from '../reply.ts'
import type { Outcome, Result, Results } from '../results/results.ts'
import type { RunCode } from './code.ts'
import { readHistory } from './history.ts'
import { factsOf, faultOf, outcomeOf } from './outcome.ts'
import { pass, type Stop, type Unplaced } from './pass.ts'
import type { Publisher } from './publisher.ts'
import { messagesOf } from './run-messages.ts'
import type { Head, Run, RunInput, RunRecord, Runs } from './runs.ts'
import { together } from './together.ts'

const MAX_TOGETHER = 500
/** How often a holder may die without a new record before the run counts as what kills them. */
const MAX_CRASHES = 5
const DEADLY = `${MAX_CRASHES} processors in a row died while they worked on it.`

/** Another processor recorded something at this place: the run went on there. */
export class PlaceTaken extends Error {}

/** A run that this processor holds. */
export interface Held {
  readonly run: Run
  /** What came for it, by name. It may grow while a pass is under way. */
  inputs: Map<string, RunInput>
}

/** @param options.closing aborts when the processor closes: steps under way are told to stop */
export function createGoOn(options: {
  readonly runs: Pick<Runs, 'get' | 'append' | 'history' | 'inputs' | 'notice' | 'put'>
  readonly results: Pick<Results, 'get' | 'settle'>
  readonly publisher: Pick<Publisher, 'publish'>
  /** Those of the catalog by default. */
  readonly contracts?: Contracts
  readonly codes: RunCode
  readonly settings: PerformerSettings
  readonly metrics: Registry
  readonly deps: Pick<Deps, 'fetch' | 'now'>
  readonly closing: AbortSignal
}) {
  const { runs, results, publisher, codes, settings, metrics, deps, closing } = options
  const contracts: Contracts = options.contracts ?? catalog
  const http = createHttp(deps)
  const appendTogether = together(runs.append, MAX_TOGETHER)
  const settleTogether = together(async (outcomes: readonly (Result & Outcome)[]) => {
    await results.settle(outcomes)
    return outcomes.map(() => true)
  }, MAX_TOGETHER)

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

  /**
   * Makes one pass over a run, publishes what it recorded, and stores its head. A run that has ended is settled first.
   * @param fresh whether it is new, and has no history
   * @throws PlaceTaken where another processor went on with it
   */
  async function goOn(mine: Held, fresh: boolean): Promise<void> {
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
      code: isDeadly ? () => Promise.reject(new Error(DEADLY)) : codes.of(run),
      history: readHistory(records),
      inputs: mine.inputs,
      append: async (unplaced) => {
        const record = await append(run, unplaced, records)
        records.push(record)
        tell(record)
        return record
      },
      context: () => ({ ...factsOf(run, contracts[run.type]), http, settings: settings.get(run.type) ?? {} }),
      faultOf: (outcome) => faultOf(run, outcome, contracts[run.type]),
      now: deps.now,
      closing,
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
    const outcome = outcomeOf(run, records, before, contracts[run.type])
    if (before?.status === 'running') {
      await settleTogether(outcome)
      settled.inc({ type: outcome.type, status: outcome.status })
    }
    // What is settled stays as it is, so the reply follows from that.
    const reply = toReply(before && before.status !== 'running' ? before : outcome, run)
    await untilClosing(publisher.publish([reply]))
  }

  /** A publish may never resolve once the processor closes. The head then says what is still to be told. */
  const untilClosing = (told: Promise<void>) => unlessAborted(told, closing)

  /** Settles what a late redrive of its request made running again, if the run has ended. */
  async function settleAgain(id: string): Promise<void> {
    const run = await runs.get(id)
    if (run?.head.state === 'ended') await settle(run, await runs.history(id), Promise.resolve())
  }

  return { goOn, settleAgain }
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
