import type { Group, Topic } from '../../messages/topics.ts'
import { backoff } from '../../service/backoff.ts'
import type { Logger } from '../../service/log.ts'
import type { BatchHandler, Subscription } from '../broker.ts'
import type { Draining } from './assignment.ts'
import type { Connect } from './client.ts'
import { isRefusedLogin } from './errors.ts'
import { type Member, startMember } from './member.ts'
import { TopicMismatch, type Topics } from './topics.ts'

/**
 * A subscription gives up when the broker answers pings but has accepted no heartbeat for this long: a new process may do
 * better. While the broker does not answer, the subscription waits: a restart would not help, and the service can do
 * other work.
 */
const GIVE_UP_MS = 5 * 60_000
/** Heartbeats come every second. */
const RECOVERING_MS = 5000
/** A service whose broker is down starts after this time. */
const FIRST_JOIN_MS = 3000
const DEFAULT_GRACE_MS = 4000

/**
 * Keeps a member in the group: where one ends, another is started after a pause. Resolves once the first has joined, or
 * after 3 s while it still tries.
 * @throws what waiting does not change: `TopicMismatch`, or a login that is refused at the first attempt.
 */
export async function subscribe(options: {
  readonly connect: Connect
  readonly topics: Topics
  readonly group: Group
  readonly groupId: string
  readonly to: readonly Topic[]
  readonly handle: BatchHandler
  /** Rejects where the broker does not answer. */
  readonly ping: () => Promise<void>
  readonly log: Logger
  readonly giveUpMs?: number
}): Promise<Subscription> {
  const { group, topics, ping, log, giveUpMs = GIVE_UP_MS } = options
  const draining: Draining = new Map()
  const closing = new AbortController()
  const firstJoin = Promise.withResolvers<void>()
  let member: Member | undefined
  let failed = false

  async function keepMember(): Promise<void> {
    const pauses = backoff({ firstMs: 250, longestMs: 2000 })
    let heartbeatAtMs = performance.now()
    let hasJoined = false
    /** The interruption that was logged, until a member joins. */
    let reported: string | undefined
    while (!closing.signal.aborted) {
      const current = startMember({ ...options, draining })
      member = current
      void current.joined.then(() => {
        if (reported !== undefined) log.info({ group }, 'the subscription runs again')
        reported = undefined
        hasJoined = true
        firstJoin.resolve()
      })
      const reason = await current.ended
      member = undefined
      if (closing.signal.aborted) return
      const lastHeartbeatMs = current.heartbeatAtMs()
      if (lastHeartbeatMs !== undefined) {
        heartbeatAtMs = lastHeartbeatMs
        pauses.reset()
      }
      await ping().catch(() => {
        heartbeatAtMs = performance.now()
      })
      const isPermanent = reason instanceof TopicMismatch || (isRefusedLogin(reason) && !hasJoined)
      if (isPermanent || performance.now() - heartbeatAtMs > giveUpMs) throw reason
      // The same reason may come every two seconds for minutes: it is a warning only once.
      const level = reported === String(reason) ? 'debug' : 'warn'
      reported = String(reason)
      log[level]({ err: reason, group }, 'the subscription was interrupted: trying again')
      // The reason may be that a topic was deleted.
      topics.forget()
      await pauses.pause(closing.signal)
    }
  }

  const ended = keepMember().catch((error: unknown) => {
    failed = true
    firstJoin.reject(error)
    throw error
  })
  // Until someone awaits `ended`, its rejection must not count as unhandled.
  ended.catch(() => {})

  function state(): ReturnType<Subscription['state']> {
    if (failed) return 'failed'
    const heartbeatAtMs = member?.heartbeatAtMs()
    const isAlive = heartbeatAtMs !== undefined && performance.now() - heartbeatAtMs < RECOVERING_MS
    return isAlive && !member?.queues().some((queue) => queue.isFailing()) ? 'running' : 'recovering'
  }

  const timer = setTimeout(firstJoin.resolve, FIRST_JOIN_MS)
  await firstJoin.promise.finally(() => clearTimeout(timer))
  return {
    state,
    ended,
    lag: () => member?.queues().map(({ topic, partition, lag }) => ({ topic, partition, lag: lag() })) ?? [],
    async close(graceMs = DEFAULT_GRACE_MS) {
      closing.abort()
      await member?.leave(graceMs)
      await ended.catch(() => {})
    },
  }
}
