import type { Component } from '@posta/common/service/component.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { deleteAll, repeat } from '@posta/common/service/repeat.ts'
import type { Store } from '../store/store.ts'
import { type CurrentHeads, hasEvent } from './signed-checkpoints.ts'

const EVERY_MS = 60 * 60 * 1000

/** How long a dead letter is kept after it was decided about. An open one is kept until an operator decides. */
export const DECIDED_RETENTION_MS = 90 * 24 * 60 * 60 * 1000

/**
 * Deletes what is too old, every hour, in portions. Several monitors may do so at once. Events are deleted up to the heads of
 * a signed checkpoint (see `EVENT_RETENTION_MS`), which stay: there the chains begin from then on.
 */
export function retention(options: {
  store: Pick<Store, 'events' | 'deadLetters' | 'checkpoints'>
  trustedHeads: () => Promise<CurrentHeads>
  deps: Pick<Deps, 'now'>
  log: Pick<Logger, 'info' | 'warn'>
  everyMs?: number
}): Component {
  const { store, trustedHeads, deps, log, everyMs = EVERY_MS } = options
  const { events, deadLetters, checkpoints } = store

  async function pruneEvents(signal: AbortSignal): Promise<void> {
    const { starts, prunedToMs, fault } = await trustedHeads()
    if (fault !== undefined) throw new Error(fault)
    for (const { chain, seq, hash } of starts) {
      // Without the event at which the chain is to begin, the events before it may be all that is left.
      if (!(await hasEvent(events, { chain, seq, hash }))) {
        log.warn({ chain, seq }, 'the chain is not pruned: the event that the checkpoint names is missing')
        continue
      }
      const deleted = await deleteAll((atMost) => events.prune(chain, seq, atMost), signal)
      if (deleted > 0) log.info({ chain, seq, deleted }, 'old events were pruned up to a checkpoint')
    }
    if (prunedToMs !== undefined) await checkpoints.prune(prunedToMs)
  }

  async function pruneDeadLetters(signal: AbortSignal): Promise<void> {
    const beforeMs = deps.now() - DECIDED_RETENTION_MS
    const deleted = await deleteAll((atMost) => deadLetters.prune(beforeMs, atMost), signal)
    if (deleted > 0) log.info({ deleted }, 'old decided dead letters were deleted')
  }

  return repeat({
    name: 'retention',
    everyMs,
    tasks: [
      { name: 'prune events', run: pruneEvents },
      { name: 'prune dead letters', run: pruneDeadLetters },
    ],
    log,
  })
}
