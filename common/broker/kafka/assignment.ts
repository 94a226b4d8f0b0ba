import type { EachBatchPayload } from 'kafkajs'
import type { Delivered } from '../../messages/message.ts'
import type { Topic } from '../../messages/topics.ts'
import { within } from '../../service/deadline.ts'
import type { Logger } from '../../service/log.ts'
import type { BatchHandler } from '../broker.ts'
import { fromKafka } from './message-format.ts'
import { createOffsetCommits } from './offset-commits.ts'
import { createPartitionQueue, type PartitionQueue } from './partition-queue.ts'

/** Handlers that were told to end and have not yet, by partition. The next handler of the partition waits for them. */
export type Draining = Map<string, Promise<void>>

interface AssignedPartition {
  readonly queue: PartitionQueue
  /** What was unreadable in the last fetch, by offset: what was wrong with which bytes. */
  suspects: ReadonlyMap<number, string>
  /** Set while kafkajs does not fetch the partition. */
  resume?: () => void
}

export type Assignment = ReturnType<typeof createAssignment>

/** The partitions that one join gave to a member, until it gives them back. */
export function createAssignment(options: {
  readonly topicByName: ReadonlyMap<string, Topic>
  readonly handle: BatchHandler
  readonly draining: Draining
  readonly log: Logger
}) {
  const { topicByName, handle, draining, log } = options
  const partitions = new Map<string, AssignedPartition>()
  let commitOffsets: EachBatchPayload['commitOffsetsIfNecessary'] | undefined
  let state: 'active' | 'stopping' | 'released' = 'active'
  const commits = createOffsetCommits(async (offsets) => commitOffsets?.(offsets), log)
  const queues = () => [...partitions.values()].map(({ queue }) => queue)

  function open(topicName: string, topic: Topic, partition: number): AssignedPartition {
    const name = partitionName({ topic, partition })
    const queue = createPartitionQueue({
      topic,
      partition,
      handle,
      commit: (offset) => commits.commit({ topic: topicName, partition, offset: String(offset) }),
      onRoom: () => partitions.get(name)?.resume?.(),
      after: draining.get(name),
      log,
    })
    const opened: AssignedPartition = { queue, suspects: new Map() }
    partitions.set(name, opened)
    return opened
  }

  function drain(queue: PartitionQueue): void {
    const name = partitionName(queue)
    const aborted = queue.abort()
    if (!queue.isBusy() || draining.has(name)) return
    draining.set(name, aborted)
    void aborted.then(() => draining.delete(name))
  }

  return {
    state: () => state,
    queues,
    /** Whether a handler runs or an offset is being committed. */
    isBusy: () => commits.isRunning() || queues().some((queue) => queue.isBusy()),
    /** Puts what kafkajs fetched into the queue of its partition. */
    receive({ batch, resolveOffset, pause, commitOffsetsIfNecessary }: EachBatchPayload): void {
      const { partition } = batch
      const topic = topicByName.get(batch.topic)
      if (!topic || batch.messages.length === 0) return
      commitOffsets = commitOffsetsIfNecessary
      const assigned = partitions.get(partitionName({ topic, partition })) ?? open(batch.topic, topic, partition)
      const { queue } = assigned
      if (state !== 'active') void queue.stop()
      const fetched = batch.messages.map((message) => fromKafka(topic, partition, message))
      const messages = confirmed(fetched, assigned.suspects)
      assigned.suspects = suspectsAmong(fetched)
      queue.add(messages, Number(batch.highWatermark))
      // The rest is fetched again.
      const last = messages.at(-1)
      if (last) resolveOffset(String(last.offset))
      if (messages.length < fetched.length)
        log.warn({ topic, partition, offset: fetched[messages.length]?.offset }, 'unreadable: it is fetched again')
      if (queue.isFull()) assigned.resume = pause()
    },
    /**
     * Calls no handler again. A running one may finish for `graceMs`, then it is aborted. Rejects where one still runs
     * `abortMs` after that.
     */
    async stop(graceMs: number, abortMs: number): Promise<void> {
      if (state === 'active') state = 'stopping'
      await within(Promise.all(queues().map((queue) => queue.stop())), graceMs, 'Finishing').catch(() =>
        within(Promise.all(queues().map((queue) => queue.abort())), abortMs, 'Aborting'),
      )
    },
    /** Resolves when nothing is being committed. */
    committed: commits.idle,
    /** Aborts the handlers, commits nothing more, and lets kafkajs fetch again what it had paused. */
    release(): void {
      state = 'released'
      commits.close()
      for (const { queue, resume } of partitions.values()) {
        drain(queue)
        resume?.()
      }
    },
  }
}

function partitionName({ topic, partition }: { readonly topic: Topic; readonly partition: number }): string {
  return `${topic}/${partition}`
}

/** Those before the first unreadable one that is no suspect. A fault on the way is gone when they are fetched again. */
function confirmed(fetched: readonly Delivered[], suspects: ReadonlyMap<number, string>): readonly Delivered[] {
  const first = fetched.findIndex(
    ({ offset, unreadable }) => unreadable !== undefined && suspects.get(offset) !== unreadable,
  )
  return first < 0 ? fetched : fetched.slice(0, first)
}

function suspectsAmong(fetched: readonly Delivered[]): ReadonlyMap<number, string> {
  return new Map(
    fetched.flatMap(({ offset, unreadable }): [number, string][] => (unreadable ? [[offset, unreadable]] : [])),
  )
}
