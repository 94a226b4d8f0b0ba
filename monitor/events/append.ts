import { setImmediate } from 'node:timers/promises'
import { pause } from '@posta/common/service/backoff.ts'
import { link, START } from '../audit/chain.ts'
import type { Events, NewEvent, Tail } from './events.ts'

export type Append = (events: readonly NewEvent[], signal?: AbortSignal) => Promise<void>

/** An embedded store stops the whole process while it inserts: it takes this many events at once, at most. */
const MAX_INSERT = 500
/** After a conflict the chain's end is read anew, so the next insert works unless yet another writer is faster. */
const MAX_CONFLICTS = 20
const CONFLICT_PAUSE_MS = 5

/**
 * Adds events to the ends of their chains. Each id is stored once, even where it comes again in another chain. The events
 * are durable when it resolves. After a rejection some of them may be stored; appending all of them again is safe. Others,
 * in this process and in others, may append to the same chains: the store's unique indexes decide who was first.
 */
export function createAppend(events: Pick<Events, 'insert' | 'existing' | 'tail'>): Append {
  const tails = new Map<string, Tail>()

  async function appendTo(chain: string, given: readonly NewEvent[], signal?: AbortSignal): Promise<void> {
    let pending = given
    for (let conflicts = 0; pending.length > 0; conflicts++) {
      if (conflicts > MAX_CONFLICTS) throw new Error(`Too many conflicts with others that append to ${chain}.`)
      signal?.throwIfAborted()
      const linked = link(tails.get(chain) ?? (await events.tail(chain)) ?? START, pending)
      // An insert that fails may have stored some of them: then the tail must be read again.
      tails.delete(chain)
      if ((await events.insert(linked)) === 'stored') {
        const last = linked.at(-1)
        if (last) tails.set(chain, last)
        return
      }
      // A store with replicas shows only what most of them hold: what refused the insert may not be visible at once.
      if (conflicts > 0) await pause(conflicts * CONFLICT_PAUSE_MS, signal)
      const existing = await events.existing(pending.map(({ id }) => id))
      pending = pending.filter(({ id }) => !existing.has(id))
    }
  }

  return async (given, signal) => {
    const unique = new Map<string, NewEvent>()
    for (const event of given) if (!unique.has(event.id)) unique.set(event.id, event)
    for (const [chain, ofChain] of Map.groupBy(unique.values(), (event) => event.chain))
      for (let start = 0; start < ofChain.length; start += MAX_INSERT) {
        // Others get their turn between two inserts.
        if (start > 0) await setImmediate()
        await appendTo(chain, ofChain.slice(start, start + MAX_INSERT), signal)
      }
  }
}
