import type { Broker } from '@posta/common/broker/broker.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { Registry } from 'prom-client'
import type { AnyPerformer } from '../performers/performer.ts'
import { performers } from '../performers/performers.ts'
import type { Results } from '../results/results.ts'
import { createRunner, type Runner } from '../runs/runner.ts'
import type { Head, Run, Runs } from '../runs/runs.ts'
import type { Store } from '../store/store.ts'
import { contracts } from './requests.ts'

/** What befalls a processor at one of its calls that write, publish or have an effect outside. */
export interface Fault {
  /** At which call, from 1. */
  readonly at: number
  /**
   * - `kill`: as kill -9. Nothing that it began goes on: each of its calls never answers from then on.
   * - `cut off`: each of its calls rejects from then on, and it does nothing outside.
   * - `reject`: this call alone rejects.
   * - `freeze`: it stands still for `lastsMs`, and then goes on with what it was about to do.
   * - `suspect`: it works on, but the others see its beat stand still for `lastsMs`.
   */
  readonly kind: 'kill' | 'cut off' | 'reject' | 'freeze' | 'suspect'
  /** Whether the call was done before. Of a publish that rejects, half of it was. */
  readonly afterwards: boolean
  readonly lastsMs: number
}

type Gate = ReturnType<typeof createGate>

/** Everything that a processor does passes here, until its fault befalls it. */
function createGate(given: Fault | undefined) {
  let fault = given
  const ended = Promise.withResolvers<void>()
  let calls = 0
  let thawed: Promise<void> = Promise.resolve()
  let isSuspected = false
  let over: 'kill' | 'cut off' | undefined

  /** Resolves if the processor is still there, and goes on. */
  async function here(): Promise<void> {
    await thawed
    if (over === 'kill') return new Promise(() => {})
    if (over === 'cut off') throw new Error('It is cut off.')
  }

  function suspectFor(ms: number): Promise<void> {
    isSuspected = true
    return Bun.sleep(ms).then(() => {
      isSuspected = false
    })
  }

  async function befall({ kind, lastsMs }: Fault): Promise<void> {
    if (kind === 'reject') throw new Error('It does not answer.')
    if (kind === 'suspect') void suspectFor(lastsMs)
    if (kind === 'freeze') thawed = suspectFor(lastsMs)
    if (kind === 'kill' || kind === 'cut off') {
      over = kind
      ended.resolve()
    }
    await here()
  }

  return {
    /** Resolves when it is killed or cut off. */
    ended: ended.promise,
    /** From now on nothing befalls it. */
    spare() {
      fault = undefined
    },
    seemsDead: () => isSuspected || over !== undefined,
    isKilled: () => over === 'kill',
    here,
    async read<Answer>(work: () => Promise<Answer>): Promise<Answer> {
      await here()
      const answer = await work()
      await here()
      return answer
    },
    /** @param part what is done of it where it rejects */
    async write<Answer>(work: () => Promise<Answer>, part: () => Promise<unknown> = work): Promise<Answer> {
      await here()
      calls += 1
      if (!fault || calls !== fault.at) return work()
      if (!fault.afterwards) {
        await befall(fault)
        return work()
      }
      if (fault.kind === 'freeze' || fault.kind === 'suspect') {
        const answer = await work()
        await befall(fault)
        return answer
      }
      await part()
      await befall(fault)
      throw new Error('It is over.')
    },
  }
}

/** What all processors of a test share. */
export interface Shared {
  readonly store: Pick<Store, 'runs' | 'results'>
  /** What was published so far, by whom. */
  readonly published: { readonly by: string; readonly message: Outgoing }[]
  /** Those that were started, by the name that they hold runs by. */
  readonly processors: Map<string, FaultyProcessor>
  /** Whether two callers that change one head at once both do, as on a store whose updates are not atomic. */
  readonly racyHeads: boolean
  /** How long a publish takes. */
  readonly publishMs: number
}

export interface FaultyProcessor {
  readonly name: string
  readonly runner: Runner
  readonly runs: Runs
  readonly results: Pick<Results, 'get' | 'settle' | 'find' | 'append'>
  readonly gate: Gate
  /** How many records of a run it has read, or written, in this pass. */
  known(run: string): number
  close(): Promise<void>
}

/**
 * For tests: a processor's runner that a fault befalls. Another takes its runs over as soon as it seems dead, and not after
 * seconds.
 * @param code makes the code of `sample` for this processor
 */
export async function startFaulty(
  { store, published, processors, racyHeads, publishMs }: Shared,
  code: (processor: Pick<FaultyProcessor, 'gate' | 'known'>) => NonNullable<AnyPerformer['run']>,
  { fault, skewMs }: { readonly fault: Fault | undefined; readonly skewMs: number },
): Promise<FaultyProcessor> {
  const name = `p${processors.size}`
  const gate = createGate(fault)
  const knownOf = new Map<string, number>()
  const known = (run: string) => knownOf.get(run) ?? 0
  const runs = faultyRuns(racyHeads ? withRacyHeads(store.runs) : store.runs, gate, knownOf, (holder) => {
    return processors.get(holder)?.gate.seemsDead() ?? false
  })
  const write = writing(gate)
  const read = reading(gate)
  const results = {
    get: read(store.results.get),
    find: read(store.results.find),
    append: write(store.results.append),
    settle: write(store.results.settle),
  }
  const broker: Pick<Broker, 'publish'> = {
    publish(messages) {
      const put = async (part: readonly Outgoing[]) => {
        if (publishMs > 0) await Bun.sleep(publishMs)
        await gate.here()
        published.push(...part.map((message) => ({ by: name, message })))
        return part.map(({ topic }) => ({ topic, partition: 0, offset: 0 }))
      }
      return gate.write(
        () => put(messages),
        () => put(messages.slice(0, Math.ceil(messages.length / 2))),
      )
    },
  }
  const runner = createRunner({
    contracts,
    runs,
    results,
    broker,
    performers: {
      ...performers,
      [sample.type]: Object.assign({ ...performers[sample.type] }, { run: code({ gate, known }) }),
    },
    settings: new Map(),
    log: createLog('test', 'silent'),
    metrics: new Registry(),
    deps: {
      ...systemDeps,
      now: () => Date.now() + skewMs,
      // Seconds of it go by while the others look a few times.
      monotonicMs: () => 1000 * performance.now(),
      newId: () => name,
    },
  })
  const processor: FaultyProcessor = {
    name,
    runner,
    runs,
    results,
    gate,
    known,
    async close() {
      gate.spare()
      // What was killed hangs in calls that never answer.
      if (!gate.isKilled()) await runner.close?.(100)
    },
  }
  processors.set(name, processor)
  await runner.start?.()
  return processor
}

const writing =
  (gate: Gate) =>
  <Args extends unknown[], Answer>(call: (...args: Args) => Promise<Answer>) =>
  (...args: Args) =>
    gate.write(() => call(...args))

const reading =
  (gate: Gate) =>
  <Args extends unknown[], Answer>(call: (...args: Args) => Promise<Answer>) =>
  (...args: Args) =>
    gate.read(() => call(...args))

function faultyRuns(runs: Runs, gate: Gate, known: Map<string, number>, seemsDead: (holder: string) => boolean): Runs {
  const write = writing(gate)
  const read = reading(gate)
  let beats = 0
  return {
    create: write(runs.create),
    get: read(runs.get),
    getMany: read(runs.getMany),
    append: write(async (records) => {
      const added = await runs.append(records)
      for (const [index, { run, record }] of records.entries()) if (added[index]) known.set(run, record.n + 1)
      return added
    }),
    history: read(async (id) => {
      const records = await runs.history(id)
      known.set(id, records.length)
      return records
    }),
    due: read(runs.due),
    nextDueMs: read(runs.nextDueMs),
    take: write(runs.take),
    put: write(runs.put),
    // Who does not seem dead raises its beat each time that somebody looks.
    holders: read(async () =>
      (await runs.holders()).map((each) => (seemsDead(each.holder) ? each : { ...each, beat: ++beats })),
    ),
    beat: read(runs.beat),
    forget: read(runs.forget),
    addInputs: write(runs.addInputs),
    inputs: read(runs.inputs),
    unnoticed: read(runs.unnoticed),
    notice: write(runs.notice),
    pause: write(runs.pause),
    paused: read(runs.paused),
    page: read(runs.page),
    deleteBefore: write(runs.deleteBefore),
  }
}

/** A head is compared first and written a moment later, so that of two callers at once both do it, and the last one stays. */
function withRacyHeads(runs: Runs): Runs {
  let calls = 0
  const moment = () => Bun.sleep(calls++ % 3)
  const isAs = (now: Run | undefined, { head }: Run) =>
    now?.head.epoch === head.epoch && now.head.holder === head.holder

  async function change(held: Run, toHead: (now: Head) => Head): Promise<Run | undefined> {
    if (!isAs(await runs.get(held.id), held)) return undefined
    await moment()
    const now = await runs.get(held.id)
    // The two are at once only where nothing came between them.
    const taken = now && now.head.state === 'running' && now.head.epoch === held.head.epoch + 1
    if (!now || !(isAs(now, held) || taken)) return undefined
    const head = toHead(now.head)
    return (await runs.put(now, head)) ? { ...now, head } : undefined
  }

  return {
    ...runs,
    take: (run, holder) => change(run, (now) => ({ ...now, state: 'running', holder, epoch: run.head.epoch + 1 })),
    put: async (held, head) => (await change(held, () => head)) !== undefined,
  }
}
