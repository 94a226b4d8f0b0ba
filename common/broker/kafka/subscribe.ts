import { setTimeout as sleep } from 'node:timers/promises'
import type { Group, Topic } from '../../messages/topics.ts'
import type { Logger } from '../../service/log.ts'
import type { BatchHandler, Subscription } from '../broker.ts'
import type { Connect } from './client.ts'
import { isRefusedLogin } from './errors.ts'
import { type Member, startMember } from './member.ts'
import { TopicMismatch, type Topics } from './topics.ts'

const FIRST_PAUSE_MS = 250
const LONGEST_PAUSE_MS = 2000
/**
 * Without a heartbeat taken for so long by a broker that answers, the subscription gives up: a new process may do better.
 * A broker that does not answer is waited for: meanwhile the service has other work, and a restart would mend nothing.
 */
const GIVE_UP_MS = 5 * 60_000
/** Heartbeats come every second. */
const RECOVERING_MS = 5000
/** A service whose broker is away starts all the same, after this. */
const FIRST_JOIN_MS = 3000
const DEFAULT_GRACE_MS = 4000

/**
 * Keeps a member in the group: where one ends, another is made after a pause. Resolves once the first has joined, or
 * after 3 s while it goes on trying.
 * @throws what no waiting mends: `TopicMismatch`, or an error of the first login where that is refused.
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
  const { group, ping, log, giveUpMs = GIVE_UP_MS } = options
  const lingering = new Map<string, Promise<void>>()
  const closing = new AbortController()
  const firstJoin = Promise.withResolvers<void>()
  let member: Member | undefined
  let failed = false

  async function keep(): Promise<void> {
    let aliveAtMs = performance.now()
    let joinedOnce = false
    /** The trouble that the log already tells of. */
    let told: string | undefined
    for (let pauseMs = FIRST_PAUSE_MS; !closing.signal.aborted; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
      const current = startMember({ ...options, lingering })
      member = current
      void current.joined.then(() => {
        if (told !== undefined) log.info({ group }, 'the subscription runs again')
        told = undefined
        joinedOnce = true
        firstJoin.resolve()
      })
      const reason = await current.ended
      member = undefined
      if (closing.signal.aborted) return
      const lastAliveMs = current.aliveAtMs()
      if (lastAliveMs !== undefined) {
        aliveAtMs = lastAliveMs
        pauseMs = FIRST_PAUSE_MS
      }
      const lasting = reason instanceof TopicMismatch || (isRefusedLogin(reason) && !joinedOnce)
      const answers = await ping().then(
        () => true,
        () => false,
      )
      if (!answers) aliveAtMs = performance.now()
      if (lasting || performance.now() - aliveAtMs > giveUpMs) throw reason
      // Once for each trouble: it may come every two seconds, for minutes.
      const level = told === String(reason) ? 'debug' : 'warn'
      told = String(reason)
      log[level]({ err: reason, group }, 'the subscription was interrupted: trying again')
      // It may have been because a topic is gone.
      options.topics.forget()
      await sleep(pauseMs, undefined, { signal: closing.signal }).catch(() => {})
    }
  }

  const ended = keep().catch((error: unknown) => {
    failed = true
    firstJoin.reject(error)
    throw error
  })
  // Whoever holds the subscription hears of it from `ended`; until then it is not an error that nobody handles.
  ended.catch(() => {})

  function state(): ReturnType<Subscription['state']> {
    if (failed) return 'failed'
    const aliveAtMs = member?.aliveAtMs()
    const alive = aliveAtMs !== undefined && performance.now() - aliveAtMs < RECOVERING_MS
    return alive && !member?.feeds().some((feed) => feed.troubled()) ? 'running' : 'recovering'
  }

  const enough = setTimeout(firstJoin.resolve, FIRST_JOIN_MS)
  await firstJoin.promise.finally(() => clearTimeout(enough))
  return {
    state,
    ended,
    lag: () => member?.feeds().map((feed) => ({ topic: feed.topic, partition: feed.partition, lag: feed.lag() })) ?? [],
    async close(graceMs = DEFAULT_GRACE_MS) {
      closing.abort()
      await member?.leave(graceMs)
      await ended.catch(() => {})
    },
  }
}
