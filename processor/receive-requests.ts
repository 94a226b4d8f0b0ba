// 3. A batch of requests: already stored? else perform; one write, one publish. Next: performers/convert.ts
import { consume } from '@posta/common/consumer/consume.ts'
import type { ConsumeOptions, Received, Verdict } from '@posta/common/consumer/handler.ts'
import type { Consumer } from '@posta/common/consumer/subscription.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import { Counter, Histogram } from 'prom-client'
import { deadLettered, decide, type Effect, isPerformed, userDayKey } from './decide.ts'
import type { Performers } from './performers/performers.ts'
import { type Request, readRequest, reply } from './request.ts'
import type { Result, ResultSummary, Results } from './results/results.ts'

export interface RequestsOptions
  extends Pick<ConsumeOptions<Request>, 'broker' | 'log' | 'metrics' | 'deps' | 'firstPauseMs'> {
  readonly results: Results
  readonly performers: Performers
  readonly dailyLimitUsdE8: number
}

/** So often a batch is computed again at once where another member of the group stored some of it meanwhile. */
const MAX_RACES = 5

/**
 * Performs what gateway asks for, a batch of one partition at a time: one look at what is stored, the decision
 * (decide.ts, which calls the performers), one ordered write, one publish of all replies; then the group's offset moves.
 * A crash at any point is made good by the redelivery: what was stored is answered from the store, the rest performed.
 *
 * Right after a partition has changed hands two members may handle the same requests. Both see them in the same order,
 * and both store a user's results in that order, so whatever the other member stored since this one looked begins with
 * the first result of that user that this one is about to store. An append ends at an id that exists: before anything
 * that was computed from a day's total which is no longer true. All is then computed anew from what is stored. The look
 * at the results comes before the totals: a total holds every result that was seen, and more only if the append will
 * tell.
 */
export function receiveRequests(options: RequestsOptions): Consumer {
  const { broker, results, performers, dailyLimitUsdE8, metrics, deps } = options
  const performed = new Counter({
    name: 'posta_operations_performed_total',
    help: 'Operations whose result was stored, by what came of them.',
    labelNames: ['type', 'status'],
    registers: [metrics],
  })
  const batchSize = new Histogram({
    name: 'posta_request_batch_size',
    help: 'Requests that were handled together.',
    buckets: [1, 2, 5, 10, 25, 50, 100, 250, 500],
    registers: [metrics],
  })

  async function handle(received: readonly Received<Request>[], signal: AbortSignal): Promise<readonly Verdict[]> {
    const requests = received.map(({ item }) => item)
    for (let races = 0; races < MAX_RACES; races++) {
      const stored = await results.find([...new Set(requests.map(({ id }) => id))])
      const countedUsdE8 = await countedBefore(requests, stored)
      const completedAt = new Date(deps.now()).toISOString()
      const decision = decide(requests, { performers, dailyLimitUsdE8, stored, countedUsdE8, completedAt })
      signal.throwIfAborted()
      if (await store(decision.effects)) {
        signal.throwIfAborted()
        if (decision.replies.length > 0) await broker.publish(decision.replies)
        batchSize.observe(requests.length)
        return decision.verdicts
      }
    }
    throw new Error('Another member of the group goes on storing the results of the same requests.')
  }

  async function countedBefore(
    requests: readonly Request[],
    stored: ReadonlyMap<string, ResultSummary>,
  ): Promise<ReadonlyMap<string, number>> {
    const asked = new Map(
      requests.filter((request) => isPerformed(request, stored.get(request.id))).map((one) => [userDayKey(one), one]),
    )
    if (asked.size === 0) return new Map()
    const counted = await results.countedUsdE8([...asked.values()].map(({ user, day }) => ({ user, day })))
    return new Map([...asked.keys()].map((key, index) => [key, counted[index] ?? 0]))
  }

  /** False where another member was faster: that result and those after it are not stored. */
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

  function count(stored: readonly Result[]): void {
    for (const { type, status } of stored) performed.inc({ type, status })
  }

  return consume<Request>({
    ...options,
    name: 'requests',
    group: groups.processor,
    topics: [topics.requests],
    read: readRequest,
    handle,
    async onDead({ item: request }) {
      const failure = deadLettered(request, new Date(deps.now()).toISOString())
      if ((await results.append([failure])) === 1) count([failure])
      const stored = (await results.find([request.id])).get(request.id)
      if (!stored) throw new Error('The result of a dead request cannot be read back yet.')
      await broker.publish([reply(stored, request)])
    },
  })
}
