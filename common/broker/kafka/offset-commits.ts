import type { EachBatchPayload, TopicPartitionOffset } from 'kafkajs'
import { pause } from '../../service/backoff.ts'
import type { Logger } from '../../service/log.ts'
import { protocolError } from './errors.ts'
import { createWorkLoop } from './work-loop.ts'

const RETRY_PAUSE_MS = 200

/** The group has gone on without this member. Whoever has the partition now commits for it. */
const OUT_OF_THE_GROUP = ['ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', 'REBALANCE_IN_PROGRESS', 'FENCED_INSTANCE_ID']

/**
 * Commits the offsets of one assignment, with one request at a time: the offsets that partitions reach meanwhile go
 * together in the next one.
 */
export function createOffsetCommits(send: EachBatchPayload['commitOffsetsIfNecessary'], log: Logger) {
  /** The latest offset of each partition. */
  const pending = new Map<string, TopicPartitionOffset>()
  let closed = false
  const { run, isRunning, idle } = createWorkLoop(() => pending.size > 0 && !closed, commitPending)

  async function commitPending(): Promise<void> {
    const offsets = [...pending]
    pending.clear()
    const byTopic = Map.groupBy(offsets, ([, { topic }]) => topic)
    try {
      await send({ topics: [...byTopic].map(([topic, each]) => ({ topic, partitions: each.map(([, at]) => at) })) })
    } catch (error) {
      if (closed || OUT_OF_THE_GROUP.includes(protocolError(error) ?? '')) return
      log.debug({ err: error }, 'offsets could not be committed; trying again')
      for (const [name, offset] of offsets) if (!pending.has(name)) pending.set(name, offset)
      await pause(RETRY_PAUSE_MS)
    }
  }

  return {
    /** Resolves when the group's offset has moved, or cannot move any more. */
    commit(offset: TopicPartitionOffset): Promise<void> {
      pending.set(`${offset.topic}/${offset.partition}`, offset)
      return run()
    },
    isRunning,
    idle,
    /** Drops what is not committed: it belongs to whoever has the partition next. */
    close() {
      closed = true
    },
  }
}
