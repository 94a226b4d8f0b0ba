import type { Topic } from '../../messages/topics.ts'
import { within } from '../../service/deadline.ts'
import type { Logger } from '../../service/log.ts'
import type { BatchHandler } from '../broker.ts'
import { createAssignment, type Draining } from './assignment.ts'
import { type Connect, retry } from './client.ts'
import { assignerThatWaits, revoke } from './revocation.ts'
import type { Topics } from './topics.ts'

/** The least that brokers allow by default. A member that died is replaced after it. */
const SESSION_TIMEOUT_MS = 6000
const HEARTBEAT_MS = 1000
/** How long the group waits for a member to join again. Longer than a revocation takes. */
const REBALANCE_TIMEOUT_MS = 10_000
/** How long the broker keeps a fetch open while there is no message. A new message ends the wait at once. */
const FETCH_WAIT_MS = 250
/** A member without a heartbeat for this long is replaced: kafkajs is taken to hang. Longer than a rebalance takes. */
const SILENCE_MS = 20_000
/** How long a closing member waits for a handler whose signal has aborted. */
const ABORT_MS = 500
const LEAVE_MS = 1500

export type Member = ReturnType<typeof startMember>

/** A consumer of kafkajs, from its first join to its end. */
export function startMember(options: {
  readonly connect: Connect
  readonly groupId: string
  readonly topics: Topics
  readonly to: readonly Topic[]
  readonly handle: BatchHandler
  /** Shared with the members before and after this one. */
  readonly draining: Draining
  readonly log: Logger
}) {
  const { connect, groupId, topics, to, handle, draining } = options
  const log = options.log.child({ group: groupId })
  const topicByName = new Map(to.map((topic) => [topics.nameOf(topic), topic]))
  const client = connect()
  const joined = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<unknown>()
  const startedAtMs = performance.now()
  let heartbeatAtMs: number | undefined
  const newAssignment = () => createAssignment({ topicByName, handle, draining, log })
  let assignment = newAssignment()

  const consumer = client.kafka.consumer({
    groupId,
    sessionTimeout: SESSION_TIMEOUT_MS,
    rebalanceTimeout: REBALANCE_TIMEOUT_MS,
    heartbeatInterval: HEARTBEAT_MS,
    maxWaitTimeInMs: FETCH_WAIT_MS,
    allowAutoTopicCreation: false,
    // None of our producers uses transactions. Another program's that is left open would hide what comes after it, for up
    // to 15 minutes each time.
    readUncommitted: true,
    partitionAssigners: [
      assignerThatWaits(() => {
        if (assignment.state() === 'active') void revoke(assignment, draining, log)
        return assignment.state() === 'released'
      }),
    ],
    // Enough attempts for a revocation. After a crash `subscribe` starts a new member: kafkajs would restart for ever.
    retry: { ...retry, retries: 12, restartOnFailure: async () => false },
  })

  function end(reason: unknown): void {
    clearInterval(watch)
    assignment.release()
    client.kill()
    ended.resolve(reason)
  }

  // After a crash kafkajs disconnects before it reports, and `disconnect` may wait for ever for a broker that is gone.
  const watch = setInterval(() => {
    if (performance.now() - (heartbeatAtMs ?? startedAtMs) > SILENCE_MS)
      end(new Error(`The broker accepted no heartbeat of a member of ${groupId} for ${SILENCE_MS / 1000} s.`))
  }, 1000)

  consumer.on('consumer.heartbeat', () => {
    heartbeatAtMs = performance.now()
  })
  consumer.on('consumer.group_join', () => {
    heartbeatAtMs = performance.now()
    assignment.release()
    assignment = newAssignment()
    joined.resolve()
  })
  consumer.on('consumer.crash', ({ payload }) => end(payload.error))

  async function start(): Promise<void> {
    await Promise.all([consumer.connect(), topics.ensure()])
    await consumer.subscribe({ topics: [...topicByName.keys()], fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: async (payload) => assignment.receive(payload),
    })
  }
  start().catch(end)

  async function disconnect(): Promise<void> {
    await assignment.committed()
    // Only then can kafkajs join again, which it does before it leaves a group that is changing.
    assignment.release()
    await consumer.disconnect()
  }

  return {
    joined: joined.promise,
    /** Resolves with the reason when it cannot go on. */
    ended: ended.promise,
    /** When the broker last accepted a heartbeat or a join, by `performance.now()`; undefined before the first. */
    heartbeatAtMs: () => heartbeatAtMs,
    queues: () => assignment.queues(),
    /** Lets handlers finish for `graceMs`, then aborts them; commits what is done and leaves the group. */
    async leave(graceMs: number): Promise<void> {
      await assignment
        .stop(graceMs, ABORT_MS)
        .catch((error: unknown) => log.warn({ err: error }, 'a handler ignores that its subscription closes'))
      await within(disconnect(), LEAVE_MS, 'Leaving the group').catch((error: unknown) =>
        log.debug({ err: error }, 'the broker did not confirm that the member left the group'),
      )
      end(undefined)
    },
  }
}
