import { setImmediate, setTimeout } from 'node:timers/promises'
import { link, START } from '../audit/chain.ts'
import type { Events, NewEvent, Tail } from './events.ts'

export type Append = (events: readonly NewEvent[], signal?: AbortSignal) => Promise<void>

/** What one insert takes at most: an embedded store stops the whole process for so long. */
const MAX_INSERT = 500
/** Each conflict means that someone else went on, or that a message came twice: more in a row is trouble. */
const MAX_CONFLICTS = 20
const CONFLICT_PAUSE_MS = 5

/**
 * Puts events at the end of their chains, each id once, whichever chain has it. Durable when it resolves; after a
 * rejection some may be stored, and appending all of them again is right. Others, here and in other processes, may append
 * to the same chains: the store's unique indexes decide.
 */
export function createAppend(events: Pick<Events, 'insert' | 'existing' | 'tail'>): Append {
  const tails = new Map<string, Tail>()

  async function appendTo(chain: string, given: readonly NewEvent[], signal?: AbortSignal): Promise<void> {
    let pending = given
    for (let conflicts = 0; pending.length > 0; conflicts++) {
      if (conflicts > MAX_CONFLICTS) throw new Error(`Too many others append to ${chain}.`)
      signal?.throwIfAborted()
      const linked = link(tails.get(chain) ?? (await events.tail(chain)) ?? START, pending)
      // If the insert fails half-way nobody knows where the chain ends: then it is read.
      tails.delete(chain)
      if ((await events.insert(linked)) === 'stored') {
        const last = linked.at(-1)
        if (last) tails.set(chain, last)
        return
      }
      // A store with replicas shows only what most of them hold: what stood in the way may take a moment to be seen.
      if (conflicts > 0) await setTimeout(conflicts * CONFLICT_PAUSE_MS, undefined, { signal })
      const existing = await events.existing(pending.map(({ id }) => id))
      pending = pending.filter(({ id }) => !existing.has(id))
    }
  }

  return async (given, signal) => {
    const unique = new Map<string, NewEvent>()
    for (const event of given) if (!unique.has(event.id)) unique.set(event.id, event)
    for (const [chain, ofChain] of Map.groupBy(unique.values(), (event) => event.chain))
      for (let start = 0; start < ofChain.length; start += MAX_INSERT) {
        // Others are let in between two inserts.
        if (start > 0) await setImmediate()
        await appendTo(chain, ofChain.slice(start, start + MAX_INSERT), signal)
      }
  }
}
