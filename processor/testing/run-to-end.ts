import { type Deps, systemDeps } from '@posta/common/service/deps.ts'
import { createHttp } from '@posta/common/service/external-http.ts'
import { sample } from '@posta/common/testing/sample.ts'
import type { AnyPerformer } from '../performers/performer.ts'
import { readHistory } from '../runs/history.ts'
import { pass, type Stop, type Unplaced } from '../runs/pass.ts'
import type { Run, RunInput, RunRecord } from '../runs/runs.ts'
import { NOON, NOON_MS } from './requests.ts'

/** A run of ana's, that `decide` has just said to go on with. */
export function newRun(more: Partial<Run> = {}): Run {
  return {
    id: 'op',
    user: 'ana',
    type: sample.type,
    version: 1,
    input: sample.input(),
    facts: sample.facts,
    createdAt: NOON,
    decidedAtMs: NOON_MS,
    decided: null,
    position: { partition: 0, offset: 0, timestampMs: NOON_MS },
    head: { state: 'running', holder: 'me', epoch: 1, dueAtMs: NOON_MS, attempts: 0, failures: 0, published: 0 },
    ...more,
  }
}

export const input = (name: string, more: Partial<RunInput> = {}): RunInput => ({
  run: 'op',
  user: 'ana',
  name,
  by: 'ana',
  atMs: NOON_MS,
  ...more,
})

interface Ran {
  readonly stop: Stop
  readonly records: readonly RunRecord[]
  /** What the run came to, if it has ended. */
  readonly outcome: Extract<RunRecord, { kind: 'ended' }>['outcome'] | undefined
}

/**
 * For tests of a performer's `run`: goes on with it as a processor does, in memory, until it has ended, is stuck or waits
 * for an answer that is not among `inputs`. The clock jumps to the next due time.
 * @param options.inputs what comes for it, in `name`: `cancel`, or `signal:` and the name of a signal
 * @param options.records what was recorded before
 * @param options.beforeAppend is called before each record; what it throws is as a crash: nothing is recorded
 * @example
 * const { outcome } = await runToEnd(shipOrder, { run: newRun({ input, decided }), settings })
 * expect(outcome).toEqual({ output: { label: 'L1' } })
 */
export async function runToEnd(
  performer: Required<Pick<AnyPerformer, 'run'>>,
  options: {
    readonly run?: Run
    readonly settings?: Readonly<Record<string, unknown>>
    readonly inputs?: readonly RunInput[]
    readonly records?: readonly RunRecord[]
    readonly startMs?: number
    readonly beforeAppend?: (record: RunRecord) => void
    readonly faultOf?: () => string | undefined
    readonly maxPasses?: number
    readonly deps?: Pick<Deps, 'fetch'>
  } = {},
): Promise<Ran> {
  const { settings = {}, inputs = [], beforeAppend, faultOf = () => undefined, maxPasses = 1000 } = options
  const records = [...(options.records ?? [])]
  const http = createHttp(options.deps ?? systemDeps)
  const closing = new AbortController().signal
  let run = options.run ?? newRun()
  let nowMs = options.startMs ?? NOON_MS
  for (let passes = 0; passes < maxPasses; passes++) {
    const stop = await pass({
      run,
      code: (context) => performer.run(context),
      history: readHistory(records),
      inputs: new Map(inputs.map((each) => [each.name, each])),
      append: async (unplaced: Unplaced) => {
        const record: RunRecord = { ...unplaced, n: records.length, atMs: nowMs }
        beforeAppend?.(record)
        // As a store does, which keeps JSON.
        records.push(JSON.parse(JSON.stringify(record)))
        return record
      },
      context: () => ({ input: run.input, facts: run.facts, settings, http }),
      faultOf,
      now: () => nowMs,
      closing,
    })
    const outcome = records.findLast((record) => record.kind === 'ended')?.outcome
    const waitsForAnswer = stop.kind === 'later' && stop.forSignal === true && stop.dueAtMs > nowMs
    if (stop.kind !== 'later' || (waitsForAnswer && stop.dueAtMs > nowMs + MAX_WAIT_MS))
      return { stop, records, outcome }
    nowMs = Math.max(nowMs, stop.dueAtMs)
    const { attempts, failures, step } = stop
    run = { ...run, head: { ...run.head, attempts, failures, step } }
  }
  throw new Error(`The run has not ended after ${maxPasses} passes.`)
}

/** A wait for an answer that ends later than this is taken for one without an end. */
const MAX_WAIT_MS = 29 * 24 * 60 * 60 * 1000
