import type { EachBatchPayload } from 'kafkajs'
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
    const opened = { queue }
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
      const last = batch.messages.at(-1)
      if (!topic || !last) return
      commitOffsets = commitOffsetsIfNecessary
      const assigned = partitions.get(partitionName({ topic, partition })) ?? open(batch.topic, topic, partition)
      const { queue } = assigned
      if (state !== 'active') void queue.stop()
      const messages = batch.messages.map((message) => fromKafka(topic, partition, message))
      queue.add(messages, Number(batch.highWatermark))
      resolveOffset(last.offset)
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
