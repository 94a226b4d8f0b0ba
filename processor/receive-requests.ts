// 3. Takes a batch of requests: reads what is stored, decides, stores, publishes the replies. Next: decide.ts

import { consume } from '@posta/common/consumer/consume.ts'
import type { ConsumeOptions, Received, Verdict } from '@posta/common/consumer/handler.ts'
import type { Consumer } from '@posta/common/consumer/subscription.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import { type Contracts, catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import { Counter, Histogram } from 'prom-client'
import type { PerformerSettings } from './config.ts'
import { allowanceOf, deadLettered, decide, type Effect } from './decide.ts'
import type { Performers } from './performers/performers.ts'
import { type Asked, type Request, readAsked } from './read-asked.ts'
import { toReply } from './reply.ts'
import { allowanceKey, type Result, type Results } from './results/results.ts'
import type { Runner } from './runs/runner.ts'
import { CANCEL, type RunInput, type Runs, redriveInput } from './runs/runs.ts'

export interface RequestsOptions
  extends Pick<ConsumeOptions<Asked>, 'broker' | 'log' | 'metrics' | 'deps' | 'firstPauseMs'> {
  readonly results: Results
  /** Those of the catalog by default. */
  readonly contracts?: Contracts
  readonly performers: Performers
  /** The bound of each limit, by its name, in the limit's units. */
  readonly bounds: ReadonlyMap<string, number>
  readonly settings: PerformerSettings
  readonly runs: Pick<Runs, 'addInputs' | 'inputs'>
  readonly runner: Pick<Runner, 'admit' | 'wake'>
}

/** How often a batch is decided at once, before a pause, while another member of the group stores some of its results. */
const MAX_DECISIONS = 5
/** A decision that takes longer is warned of: it holds up all others. */
const SLOW_MS = 50

/**
 * Performs the operations that gateway requests, in batches of one partition each. The group's offset moves once all
 * replies are published. After a crash the batch comes again: what was stored is answered from the store, and the rest is
 * performed.
 *
 * After a rebalance two members may handle the same requests for a moment. Both get them in the same order, and both store
 * the results of each user in that order. So whatever the other member has stored since this one read the store begins with
 * the first result that this one is about to store for that user. `append` stops at an id that exists, and so before any
 * result that depends on a total which is no longer true. The batch is then decided again. The results are read before the
 * totals: a total includes every result that was read, and if it includes others, `append` stops.
 */
export function receiveRequests(options: RequestsOptions): Consumer {
  const contracts: Contracts = options.contracts ?? catalog
  const { broker, results, performers, bounds, settings, runs, runner, log, metrics, deps } = options
  const performed = new Counter({
    name: 'posta_operations_performed_total',
    help: 'Operations whose result was stored, by status.',
    labelNames: ['type', 'status'],
    registers: [metrics],
  })
  const batchSize = new Histogram({
    name: 'posta_request_batch_size',
    help: 'Requests that were handled together.',
    buckets: [1, 2, 5, 10, 25, 50, 100, 250, 500],
    registers: [metrics],
  })
  const isoNow = () => new Date(deps.now()).toISOString()

  function onDecided(type: OperationType, tookMs: number): void {
    if (tookMs > SLOW_MS) log.warn({ type, tookMs: Math.round(tookMs) }, 'a decision took long: it holds up all others')
  }

  async function handle(received: readonly Received<Asked>[], signal: AbortSignal): Promise<readonly Verdict[]> {
    const asked = received.map(({ item }) => item)
    const requests = asked.flatMap((item) => ('request' in item ? [item.request] : []))
    const inputs = asked.flatMap((item) => ('input' in item ? [{ ...item.input, type: item.type }] : []))
    await tell(inputs.filter(({ type }) => contracts[type].steps === true))
    const cancelled = await cancelledBefore(requests, inputs)
    for (let decisions = 0; decisions < MAX_DECISIONS; decisions++) {
      const stored = await results.find([...new Set(requests.map(({ id }) => id))])
      const used = await usedBefore(requests)
      const known = { contracts, performers, bounds, settings, stored, used, cancelled }
      const decision = decide(requests, { ...known, now: isoNow, monotonicMs: deps.monotonicMs, onDecided })
      signal.throwIfAborted()
      if (await store(decision.effects)) {
        signal.throwIfAborted()
        await runner.admit(decision.runs)
        await tell(decision.redriven.map(toRedrive))
        if (decision.replies.length > 0) await broker.publish(decision.replies)
        batchSize.observe(received.length)
        const verdicts = decision.verdicts.values()
        return asked.map((item) => ('request' in item ? (verdicts.next().value ?? NO_VERDICT) : { done: true }))
      }
    }
    throw new Error('Another member of the group keeps storing results of the same requests.')
  }

  /** Stores what runs are told. Whether and when a run obeys is its own affair. */
  async function tell(inputs: readonly Omit<RunInput, 'atMs'>[]): Promise<void> {
    if (inputs.length === 0) return
    const atMs = deps.now()
    await runs.addInputs(inputs.map(({ run, user, name, by, payload }) => ({ run, user, name, by, payload, atMs })))
    runner.wake()
  }

  /**
   * The ids of the operations that are cancelled before they are decided on. A cancel comes after its request, so that is
   * so where both are in one batch, or, for an operation in steps, where the request comes again.
   */
  async function cancelledBefore(
    requests: readonly Request[],
    inputs: readonly Omit<RunInput, 'atMs'>[],
  ): Promise<ReadonlySet<string>> {
    const owners = new Map(requests.map(({ id, user }) => [id, user]))
    const inSteps = requests.filter(({ type }) => contracts[type].steps === true).map(({ id }) => id)
    const stored = inSteps.length > 0 ? await runs.inputs(inSteps) : []
    const cancels = [...inputs, ...stored].filter(({ name, run, user }) => name === CANCEL && owners.get(run) === user)
    return new Set(cancels.map(({ run }) => run))
  }

  async function usedBefore(requests: readonly Request[]): Promise<ReadonlyMap<string, number>> {
    const allowances = requests.flatMap((request) => allowanceOf(request, contracts) ?? [])
    const byKey = new Map(allowances.map((allowance) => [allowanceKey(allowance), allowance]))
    if (byKey.size === 0) return new Map()
    const used = await results.used([...byKey.values()])
    return new Map([...byKey.keys()].map((key, index) => [key, used[index] ?? 0]))
  }

  /** False if another member stored one of these results first. That one and those after it are then not stored. */
  async function store(effects: readonly Effect[]): Promise<boolean> {
    for (const effect of effects) {
      const wanted = 'append' in effect ? effect.append : [effect.replace]
      const stored =
        'append' in effect ? await results.append(wanted) : Number(await results.replaceDeadLettered(effect.replace))
      count(wanted.slice(0, stored))
      if (stored < wanted.length) return false
    }
    return true
  }

  function count(stored: readonly Pick<Result, 'type' | 'status'>[]): void {
    for (const { type, status } of stored) if (status !== 'running') performed.inc({ type, status })
  }

  return consume<Asked>({
    ...options,
    name: 'requests',
    group: groups.processor,
    topics: [topics.requests],
    read: (message) => readAsked(message, contracts),
    handle,
    async onDead({ item }) {
      if (!('request' in item)) return
      const { request } = item
      const failure = deadLettered(request, isoNow())
      if ((await results.append([failure])) === 1) count([failure])
      const stored = (await results.find([request.id])).get(request.id)
      if (!stored) throw new Error('The result of a dead-lettered request cannot be read back yet.')
      // The run of a request that came again goes on.
      if (stored.status !== 'running') await broker.publish([toReply(stored, request)])
    },
  })
}

const NO_VERDICT: Verdict = { retry: 'There was no decision.' }

/** What a redriven request tells the run that exists. */
function toRedrive({ id: run, user, redrive = '' }: Request): Omit<RunInput, 'atMs'> {
  return { run, user, name: redriveInput(redrive), by: user }
}
