// 3. Takes a batch of requests: reads what is stored, decides, stores, publishes the replies. Next: decide.ts
import type { Subscription } from '@posta/common/broker/broker.ts'
import { type Consumer, consume, type Received, type Verdict } from '@posta/common/consumer/consume.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import { Counter, Histogram } from 'prom-client'
import { deadLettered, decide, type Effect } from './decide.ts'
import type { Performers } from './performers/performers.ts'
import { type Request, readRequest, toReply } from './request-reply.ts'
import { type Result, type Results, userDayKey } from './results/results.ts'

export interface RequestsOptions
  extends Pick<Consumer<Request>, 'broker' | 'log' | 'metrics' | 'deps' | 'firstPauseMs'> {
  readonly results: Results
  readonly performers: Performers
  readonly dailyLimitUsdE8: number
}

/** How often a batch is decided at once, before a pause, while another member of the group stores some of its results. */
const MAX_DECISIONS = 5

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
export function receiveRequests(options: RequestsOptions): Subscription {
  const { broker, results, performers, dailyLimitUsdE8, metrics, deps } = options
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

  async function handle(received: readonly Received<Request>[], signal: AbortSignal): Promise<readonly Verdict[]> {
    const requests = received.map(({ item }) => item)
    for (let decisions = 0; decisions < MAX_DECISIONS; decisions++) {
      const stored = await results.find([...new Set(requests.map(({ id }) => id))])
      const countedUsdE8 = await countedBefore(requests)
      const decision = decide(requests, { performers, dailyLimitUsdE8, stored, countedUsdE8, completedAt: isoNow() })
      signal.throwIfAborted()
      if (await store(decision.effects)) {
        signal.throwIfAborted()
        if (decision.replies.length > 0) await broker.publish(decision.replies)
        batchSize.observe(requests.length)
        return decision.verdicts
      }
    }
    throw new Error('Another member of the group keeps storing results of the same requests.')
  }

  async function countedBefore(requests: readonly Request[]): Promise<ReadonlyMap<string, number>> {
    const userDays = new Map(requests.map(({ user, day }) => [userDayKey({ user, day }), { user, day }]))
    const counted = await results.countedUsdE8([...userDays.values()])
    return new Map([...userDays.keys()].map((key, index) => [key, counted[index] ?? 0]))
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

  function count(stored: readonly Result[]): void {
    for (const { type, status } of stored) performed.inc({ type, status })
  }

  return consume<Request>({
    ...options,
    group: groups.processor,
    topics: [topics.requests],
    read: readRequest,
    handle,
    async onDead({ item: request }) {
      const failure = deadLettered(request, isoNow())
      if ((await results.append([failure])) === 1) count([failure])
      const stored = (await results.find([request.id])).get(request.id)
      if (!stored) throw new Error('The result of a dead-lettered request cannot be read back yet.')
      await broker.publish([toReply(stored, request)])
    },
  })
}
