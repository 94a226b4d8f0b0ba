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

/** The partitions that one join gave to a member, until it gives them back. */
export interface Assignment {
  queues(): readonly PartitionQueue[]
  /** Puts what kafkajs fetched into the queue of its partition. */
  receive(payload: EachBatchPayload): void
  /** Whether a handler runs or an offset is being committed. */
  isBusy(): boolean
  /** Calls no handler again. Lets handlers finish for `graceMs`, then aborts them. Rejects where one runs `abortMs` later still. */
  stop(graceMs: number, abortMs: number): Promise<void>
  /** Resolves when nothing is being committed. */
  committed(): Promise<void>
  /** The end: aborts the handlers, commits nothing more, and lets kafkajs fetch again what it had paused. */
  release(): void
}

export function createAssignment(options: {
  readonly topicByName: ReadonlyMap<string, Topic>
  readonly handle: BatchHandler
  readonly draining: Draining
  readonly log: Logger
}): Assignment {
  const { topicByName, handle, draining, log } = options
  const entries = new Map<string, { readonly queue: PartitionQueue; resume?: () => void }>()
  let sendOffsets: EachBatchPayload['commitOffsetsIfNecessary'] | undefined
  let stopped = false
  const commits = createOffsetCommits({ send: async (offsets) => sendOffsets?.(offsets), log })
  const queues = () => [...entries.values()].map(({ queue }) => queue)

  function createQueue(topicName: string, topic: Topic, partition: number): PartitionQueue {
    const name = partitionName({ topic, partition })
    return createPartitionQueue({
      topic,
      partition,
      handle,
      commit: (offset) => commits.commit({ topic: topicName, partition, offset: String(offset) }),
      onRoom: () => entries.get(name)?.resume?.(),
      after: draining.get(name),
      log,
    })
  }

  return {
    queues,
    receive({ batch, resolveOffset, pause, commitOffsetsIfNecessary }) {
      const { partition } = batch
      const topic = topicByName.get(batch.topic)
      const last = batch.messages.at(-1)
      if (!topic || !last) return
      sendOffsets = commitOffsetsIfNecessary
      const name = partitionName({ topic, partition })
      const entry = entries.get(name) ?? { queue: createQueue(batch.topic, topic, partition) }
      entries.set(name, entry)
      if (stopped) void entry.queue.stop()
      entry.queue.add(
        batch.messages.map((message) => fromKafka(topic, partition, message)),
        Number(batch.highWatermark),
      )
      resolveOffset(last.offset)
      if (entry.queue.isFull()) entry.resume = pause()
    },
    isBusy: () => commits.isRunning() || queues().some((queue) => queue.isBusy()),
    async stop(graceMs, abortMs) {
      stopped = true
      const finished = Promise.all(queues().map((queue) => queue.stop()))
      await within(finished, graceMs, 'Finishing').catch(() =>
        within(Promise.all(queues().map((queue) => queue.abort())), abortMs, 'Aborting'),
      )
    },
    committed: commits.idle,
    release() {
      stopped = true
      commits.close()
      for (const { queue, resume } of entries.values()) {
        drain(queue)
        resume?.()
      }
    },
  }

  function drain(queue: PartitionQueue): void {
    const name = partitionName(queue)
    const aborted = queue.abort()
    if (!queue.isBusy() || draining.has(name)) return
    draining.set(name, aborted)
    void aborted.then(() => draining.delete(name))
  }
}

function partitionName({ topic, partition }: { readonly topic: Topic; readonly partition: number }): string {
  return `${topic}/${partition}`
}
