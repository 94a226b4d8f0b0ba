import type { Component } from '@posta/common/service/component.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { deleteAll, repeat } from '@posta/common/service/repeat.ts'
import type { Store } from '../store/store.ts'
import { hasEvent, type TrustedHeads } from './trusted-heads.ts'

const EVERY_MS = 60 * 60 * 1000

/** How long a dead letter is kept after it was redriven or discarded. An open one waits for an operator, however long. */
export const DECIDED_RETENTION_MS = 90 * 24 * 60 * 60 * 1000

/**
 * What time alone takes away, every hour, in portions; several monitors may be at it at once. Events go up to a signed
 * checkpoint (see `EVENT_RETENTION_MS`), whose heads stay: there the chains begin from then on.
 */
export function retention(parts: {
  store: Pick<Store, 'events' | 'deadLetters' | 'checkpoints'>
  trustedHeads: Pick<TrustedHeads, 'current'>
  deps: Pick<Deps, 'now'>
  log: Pick<Logger, 'info' | 'warn'>
  everyMs?: number
}): Component {
  const { store, trustedHeads, deps, log, everyMs = EVERY_MS } = parts
  const { events, deadLetters, checkpoints } = store

  async function pruneEvents(signal: AbortSignal): Promise<void> {
    const { starts, prunedToMs, fault } = await trustedHeads.current()
    if (fault !== undefined) throw new Error(fault)
    for (const { chain, seq, hash } of starts) {
      // Without the event that a chain is to begin at, what is before it may be all that there is.
      if (!(await hasEvent(events, { chain, seq, hash }))) {
        log.warn({ chain, seq }, 'nothing of the chain is pruned: the event that a checkpoint names is not there')
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
    if (deleted > 0) log.info({ deleted }, 'dead letters that were decided on long ago were deleted')
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
