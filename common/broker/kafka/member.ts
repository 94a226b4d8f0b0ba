import { setTimeout as sleep } from 'node:timers/promises'
import {
  type Assigner,
  type EachBatchPayload,
  type KafkaMessage,
  PartitionAssigners,
  type TopicPartitionOffset,
} from 'kafkajs'
import type { Delivered, Header } from '../../messages/message.ts'
import type { Topic } from '../../messages/topics.ts'
import { within } from '../../service/deadline.ts'
import type { Logger } from '../../service/log.ts'
import type { BatchHandler } from '../broker.ts'
import { type Connect, retry } from './client.ts'
import { protocolError } from './errors.ts'
import { createFeed, type Feed } from './partition-queue.ts'
import type { Topics } from './topics.ts'

/** The least that brokers allow by default: a member that died is replaced after it. */
const SESSION_TIMEOUT_MS = 6000
const HEARTBEAT_MS = 1000
/** How long the group waits for a member to join again; above what `REVOKE_LIMIT_MS` takes. */
const REBALANCE_TIMEOUT_MS = 10_000
/** How long the broker holds a fetch open while there is nothing: a new message ends the wait at once. */
const FETCH_WAIT_MS = 250
/** Handlers may finish for so long when the group changes; then their signals abort. */
const REVOKE_GRACE_MS = 2000
/** After so long this member joins again although a handler ignores its signal. */
const REVOKE_LIMIT_MS = 4000
/** Without any sign of life from the broker for so long, kafkajs is taken to hang. Longer than a rebalance takes. */
const SILENCE_MS = 20_000
/** A handler whose signal aborted is waited for no longer. */
const ABORT_MS = 500
const LEAVE_MS = 1500
const COMMIT_PAUSE_MS = 200

/** What a commit meets once the group has gone on without this member: whoever has the partition now commits for it. */
const OUT_OF_THE_GROUP = ['ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', 'REBALANCE_IN_PROGRESS', 'FENCED_INSTANCE_ID']

/** A consumer of kafkajs, from its first join to its end. */
export interface Member {
  readonly joined: Promise<void>
  /** Resolves with the reason when it can go on no more. */
  readonly ended: Promise<unknown>
  /** By `performance.now()`: when the broker last took a heartbeat of it; undefined while it never did. */
  aliveAtMs(): number | undefined
  feeds(): readonly Feed[]
  /** Lets handlers finish for `graceMs`, then aborts them; commits what is done and leaves the group. */
  leave(graceMs: number): Promise<void>
}

export interface MemberOptions {
  readonly connect: Connect
  readonly groupId: string
  readonly topics: Topics
  readonly to: readonly Topic[]
  readonly handle: BatchHandler
  /** Handlers of earlier members that have not ended, by the name of their partition. */
  readonly lingering: Map<string, Promise<void>>
  readonly log: Logger
}

export function startMember(options: MemberOptions): Member {
  const { connect, groupId, topics, to, handle, lingering, log } = options
  const topicByName = new Map(to.map((topic) => [topics.nameOf(topic), topic]))
  const client = connect()
  const joined = Promise.withResolvers<void>()
  const ended = Promise.withResolvers<unknown>()
  let isOver = false
  let lastSignMs = performance.now()
  let aliveAtMs: number | undefined
  let entries = new Map<string, { readonly feed: Feed; resume: (() => void) | undefined }>()
  /** While this member gives its partitions back. */
  let revocation: { isOver: boolean } | undefined
  let commitOffsets: EachBatchPayload['commitOffsetsIfNecessary'] | undefined
  const due = new Map<string, TopicPartitionOffset>()
  let committing: Promise<void> | undefined

  const consumer = client.kafka.consumer({
    groupId,
    sessionTimeout: SESSION_TIMEOUT_MS,
    rebalanceTimeout: REBALANCE_TIMEOUT_MS,
    heartbeatInterval: HEARTBEAT_MS,
    maxWaitTimeInMs: FETCH_WAIT_MS,
    allowAutoTopicCreation: false,
    partitionAssigners: [assigner],
    // Enough for what `assigner` may ask for. A crash is ours to recover from: kafkajs' own restarts are not bounded.
    retry: { ...retry, retries: 12, restartOnFailure: async () => false },
  })

  /**
   * kafkajs asks for the protocol when it is about to join the group, which gives all partitions back. It knows no way to
   * wait until handlers have finished with them, but it tries again when a join meets a rebalance: so this says there is
   * one for as long as handlers are at work, within a bound. Meanwhile the old membership stands and they can commit.
   */
  function assigner(config: Parameters<typeof PartitionAssigners.roundRobin>[0]): Assigner {
    const inner = PartitionAssigners.roundRobin(config)
    return {
      name: inner.name,
      version: inner.version,
      assign: (group) => inner.assign(group),
      protocol(subscription) {
        revocation ??= revoke()
        if (!revocation.isOver)
          throw Object.assign(new Error('Handlers are still at work.'), { type: 'REBALANCE_IN_PROGRESS' })
        return inner.protocol(subscription)
      },
    }
  }

  function revoke(): { isOver: boolean } {
    const state = { isOver: false }
    const feeds = [...entries.values()].map(({ feed }) => feed)
    const finish = () => {
      state.isOver = true
      for (const feed of feeds) linger(feed)
      // What could not be committed until now belongs to whoever has the partition next.
      due.clear()
    }
    const stopped = Promise.all(feeds.map((feed) => feed.stop()))
    if (!committing && lingering.size === 0 && feeds.every((feed) => !feed.busy())) {
      finish()
      return state
    }
    const grace = setTimeout(() => feeds.forEach(linger), REVOKE_GRACE_MS)
    void within(
      Promise.all([stopped, ...lingering.values()]).then(() => committing),
      REVOKE_LIMIT_MS,
      'Giving partitions back',
    )
      .catch((error: unknown) =>
        log.warn({ err: error, group: groupId }, 'a handler ignores that its partition is lost'),
      )
      .finally(() => {
        clearTimeout(grace)
        finish()
      })
    return state
  }

  /** Aborts the feed; until its handler has ended, no other may begin on the partition. */
  function linger(feed: Feed): void {
    const aborted = feed.abort()
    const name = partitionName(feed)
    if (!feed.busy() || lingering.has(name)) return
    lingering.set(name, aborted)
    void aborted.then(() => lingering.delete(name))
  }

  async function receive(payload: EachBatchPayload): Promise<void> {
    const { batch } = payload
    const topic = topicByName.get(batch.topic)
    const last = batch.messages.at(-1)
    if (!topic || !last || revocation || isOver) return
    commitOffsets = payload.commitOffsetsIfNecessary
    const { partition } = batch
    const name = partitionName({ topic, partition })
    const known = entries.get(name)
    const feed =
      known?.feed ??
      createFeed({
        topic,
        partition,
        handle,
        commit: (offset) => commit(topic, partition, offset),
        onRoom: () => entries.get(name)?.resume?.(),
        after: lingering.get(name),
        log,
      })
    const entry = known ?? { feed, resume: undefined }
    entries.set(name, entry)
    feed.offer(
      batch.messages.map((message) => delivered(topic, partition, message)),
      Number(batch.highWatermark),
    )
    payload.resolveOffset(last.offset)
    if (feed.full()) entry.resume = payload.pause()
  }

  /** Resolves when the group's offset has moved, or never will. Commits of several partitions travel together. */
  function commit(topic: Topic, partition: number, offset: number): Promise<void> {
    due.set(partitionName({ topic, partition }), { topic: topics.nameOf(topic), partition, offset: String(offset) })
    committing ??= commitDue()
    return committing
  }

  async function commitDue(): Promise<void> {
    try {
      await Promise.resolve()
      while (due.size > 0 && !isOver) await commitOnce()
    } finally {
      // In the very step that finds nothing due: what comes in the next one begins anew.
      committing = undefined
    }
  }

  async function commitOnce(): Promise<void> {
    const offsets = [...due]
    const assigned = entries
    due.clear()
    try {
      const byTopic = Map.groupBy(offsets, ([, { topic }]) => topic)
      await commitOffsets?.({
        topics: [...byTopic].map(([topic, each]) => ({ topic, partitions: each.map(([, offset]) => offset) })),
      })
    } catch (error) {
      const lost = revocation?.isOver || assigned !== entries
      if (lost || OUT_OF_THE_GROUP.includes(protocolError(error) ?? '')) return
      log.debug({ err: error, group: groupId }, 'offsets could not be committed yet')
      for (const [name, offset] of offsets) if (!due.has(name)) due.set(name, offset)
      await sleep(COMMIT_PAUSE_MS)
    }
  }

  function sign(): void {
    lastSignMs = performance.now()
  }

  function end(reason: unknown): void {
    if (isOver) return
    isOver = true
    clearInterval(watch)
    for (const { feed } of entries.values()) linger(feed)
    client.kill()
    ended.resolve(reason)
  }

  // Its `disconnect`, through which a crash goes before it is reported, may wait for ever for a broker that is gone.
  const watch = setInterval(() => {
    if (performance.now() - lastSignMs > SILENCE_MS)
      end(new Error(`The broker took no heartbeat of a member of ${groupId} for ${SILENCE_MS / 1000} s.`))
  }, 1000)

  consumer.on('consumer.heartbeat', () => {
    sign()
    aliveAtMs = lastSignMs
  })
  consumer.on('consumer.group_join', () => {
    sign()
    aliveAtMs = lastSignMs
    // What kafkajs had paused stays so over a join.
    for (const { resume } of entries.values()) resume?.()
    entries = new Map()
    revocation = undefined
    joined.resolve()
  })
  consumer.on('consumer.crash', ({ payload }) => end(payload.error))

  async function start(): Promise<void> {
    await topics.ensure()
    await consumer.connect()
    await consumer.subscribe({ topics: [...topicByName.keys()], fromBeginning: true })
    await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: receive })
  }
  start().catch(end)

  return {
    joined: joined.promise,
    ended: ended.promise,
    aliveAtMs: () => aliveAtMs,
    feeds: () => [...entries.values()].map(({ feed }) => feed),
    async leave(graceMs) {
      const feeds = [...entries.values()].map(({ feed }) => feed)
      const stopped = Promise.all(feeds.map((feed) => feed.stop()))
      await within(stopped, graceMs, 'Finishing').catch(async () => {
        const aborted = Promise.all(feeds.map((feed) => feed.abort()))
        await within(aborted, ABORT_MS, 'Aborting').catch((error: unknown) =>
          log.warn({ err: error, group: groupId }, 'a handler ignores that its subscription closes'),
        )
      })
      const left = (async () => {
        await committing
        await consumer.disconnect()
      })()
      await within(left, LEAVE_MS, 'Leaving the group').catch((error: unknown) =>
        log.debug({ err: error, group: groupId }, 'left the group without a word'),
      )
      end(undefined)
    },
  }
}

function partitionName({ topic, partition }: { readonly topic: Topic; readonly partition: number }): string {
  return `${topic}/${partition}`
}

function delivered(topic: Topic, partition: number, message: KafkaMessage): Delivered {
  return {
    topic,
    partition,
    offset: Number(message.offset),
    key: message.key,
    value: message.value,
    headers: headersOf(message),
    timestampMs: Number(message.timestamp),
  }
}

/**
 * A value that is null, which only a foreign client writes, reads as empty. Under the names of what objects inherit
 * (`constructor`) kafkajs adds what they inherit to the values: only bytes are values.
 */
function headersOf({ headers }: KafkaMessage): Header[] {
  return Object.entries(headers ?? {}).flatMap(([name, values]) =>
    [values]
      .flat()
      .filter((value) => value === null || value === undefined || Buffer.isBuffer(value))
      .map((value): Header => [name, value ?? Buffer.alloc(0)]),
  )
}
