import type { OffsetsByTopicPartition, TopicPartitionOffset } from 'kafkajs'
import { pause } from '../../service/backoff.ts'
import type { Logger } from '../../service/log.ts'
import { protocolError } from './errors.ts'
import { createWorkLoop } from './work-loop.ts'

const RETRY_PAUSE_MS = 200

/** The group has gone on without this member. Whoever has the partition now commits for it. */
const OUT_OF_THE_GROUP = ['ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', 'REBALANCE_IN_PROGRESS', 'FENCED_INSTANCE_ID']

/** Moves the group's offsets in the partitions of one assignment. */
export interface OffsetCommits {
  /** Resolves when the group's offset has moved, or cannot move any more. */
  commit(position: TopicPartitionOffset): Promise<void>
  isRunning(): boolean
  /** Resolves when nothing is being committed. */
  idle(): Promise<void>
  /** Drops what is not committed: it belongs to whoever has the partition next. */
  close(): void
}

/** One request at a time: the offsets that other partitions reach meanwhile go together in the next. */
export function createOffsetCommits(options: {
  readonly send: (offsets: OffsetsByTopicPartition) => Promise<void>
  readonly log: Logger
}): OffsetCommits {
  const { send, log } = options
  /** The latest offset of each partition. */
  const pending = new Map<string, TopicPartitionOffset>()
  let closed = false
  const { run, isRunning, idle } = createWorkLoop(() => pending.size > 0 && !closed, commitPending)

  async function commitPending(): Promise<void> {
    const positions = [...pending]
    pending.clear()
    const byTopic = Map.groupBy(positions, ([, { topic }]) => topic)
    try {
      await send({
        topics: [...byTopic].map(([topic, each]) => ({ topic, partitions: each.map(([, position]) => position) })),
      })
    } catch (error) {
      if (closed || OUT_OF_THE_GROUP.includes(protocolError(error) ?? '')) return
      log.debug({ err: error }, 'offsets could not be committed; trying again')
      for (const [name, position] of positions) if (!pending.has(name)) pending.set(name, position)
      await pause(RETRY_PAUSE_MS)
    }
  }

  return {
    commit(position) {
      pending.set(`${position.topic}/${position.partition}`, position)
      return run()
    },
    isRunning,
    idle,
    close() {
      closed = true
    },
  }
}
