import { PartitionAssigners } from 'kafkajs'
import { within } from '../../service/deadline.ts'
import type { Logger } from '../../service/log.ts'
import type { Assignment, Draining } from './assignment.ts'

/** How long handlers may take to finish when the group changes. Then their signals abort. */
const GRACE_MS = 2000
/** How long after the abort the member joins again at the latest, even if a handler still runs. */
const ABORT_MS = 2000

/**
 * An assigner that makes a member wait for its handlers before it gives its partitions back. kafkajs gives them back by
 * joining the group again, and calls `protocol` right before. It cannot wait there, but it tries again after
 * REBALANCE_IN_PROGRESS: so `protocol` throws that until `isRevoked`. Meanwhile the member can still commit.
 */
export function assignerThatWaits(isRevoked: () => boolean): typeof PartitionAssigners.roundRobin {
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

/** Releases the assignment once its handlers and those before them have ended and are committed, within 4 s. */
export async function revoke(assignment: Assignment, draining: Draining, log: Logger): Promise<void> {
  // Where nothing runs the release is synchronous, so that the first attempt to join succeeds.
  if (assignment.isBusy() || draining.size > 0) {
    const handlers = Promise.all([assignment.stop(GRACE_MS, ABORT_MS), ...draining.values()])
    const committed = handlers.then(() => assignment.committed())
    await within(committed, GRACE_MS + ABORT_MS, 'Giving partitions back').catch((error: unknown) =>
      log.warn({ err: error }, 'a handler ignores that its partition is lost'),
    )
  }
  assignment.release()
}
