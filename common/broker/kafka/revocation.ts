import { PartitionAssigners } from 'kafkajs'
import { within } from '../../service/deadline.ts'
import type { Logger } from '../../service/log.ts'
import type { Assignment, Draining } from './assignment.ts'

/** Handlers may finish for so long when the group changes; then their signals abort. */
const GRACE_MS = 2000
/** Some time after that, the member joins again although a handler ignores its signal. */
const ABORT_MS = 2000

type CreateAssigner = typeof PartitionAssigners.roundRobin

/**
 * Makes a member wait for its handlers before it gives its partitions back. kafkajs does that by joining the group again,
 * and asks the assigner for its protocol right before. It knows no way to wait there, but it tries again after
 * REBALANCE_IN_PROGRESS: so the assigner throws that until `isRevoked`. Until then the member can still commit.
 */
export function assignerThatWaits(isRevoked: () => boolean): CreateAssigner {
  return (config) => {
    const assigner = PartitionAssigners.roundRobin(config)
    return {
      ...assigner,
      protocol(subscription) {
        if (!isRevoked())
          throw Object.assign(new Error('Handlers are still running.'), { type: 'REBALANCE_IN_PROGRESS' })
        return assigner.protocol(subscription)
      },
    }
  }
}

/** Ends an assignment, at the latest after 4 s: handlers finish or are aborted, and what they did is committed. */
export function revoke(assignment: Assignment, draining: Draining, log: Logger): { readonly isOver: boolean } {
  const revocation = { isOver: false }
  const end = () => {
    assignment.release()
    revocation.isOver = true
  }
  if (!assignment.isBusy() && draining.size === 0) {
    end()
    return revocation
  }
  const ended = Promise.all([assignment.stop(GRACE_MS, ABORT_MS), ...draining.values()])
  void within(
    ended.then(() => assignment.committed()),
    GRACE_MS + ABORT_MS,
    'Giving partitions back',
  )
    .catch((error: unknown) => log.warn({ err: error }, 'a handler ignores that its partition is lost'))
    .finally(end)
  return revocation
}
