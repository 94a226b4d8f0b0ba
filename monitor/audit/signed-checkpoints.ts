import { type ChainHead, type Checkpoint, keySet, readCheckpoint } from '@posta/common/messages/checkpoint.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { FindKey } from '@posta/common/service/tokens.ts'
import type { Events, StoredEvent } from '../events/events.ts'
import { show } from '../events/show.ts'
import type { Store } from '../store/store.ts'
import { CHAINS } from './chain.ts'
import { type DatedHeads, EVENT_RETENTION_MS, trustedHeadsOf } from './trusted-heads.ts'

/** The clocks of two machines may differ by so much. */
const MAX_AHEAD_MS = 24 * 60 * 60 * 1000

/** What the store's own checkpoints say. */
export interface CurrentHeads extends DatedHeads {
  /** The time of the checkpoint at which the chains begin: everything before it may be pruned. */
  readonly prunedToMs?: number
  /** Why a checkpoint that is there cannot be used. */
  readonly fault?: string
}

export interface Kept {
  /** The heads that the chains should contain and do not: the store was cut off, replaced by an old copy, or is new. */
  readonly missing: ChainHead[]
  /** Nothing in the store is older than the checkpoint: it has none of the events that the checkpoint covers. */
  readonly storeIsNew: boolean
}

/** Gateway's checkpoints, as monitor's store has them. */
export interface SignedCheckpoints {
  /** The end of each chain that has an event: what gateway signs. */
  heads(): Promise<ChainHead[]>
  /** @throws Problem `keys-unavailable` */
  trustedHeads(): Promise<CurrentHeads>
  /**
   * Keeps a checkpoint, and compares the chains with it.
   * @throws Problem `invalid-input` where gateway has not signed it, or its time is in the future; `keys-unavailable`
   */
  keep(jwt: string): Promise<Kept>
}

export function createSignedCheckpoints(options: {
  store: Pick<Store, 'events' | 'checkpoints'>
  findKey: FindKey
  deps: Pick<Deps, 'now'>
}): SignedCheckpoints {
  const { store, findKey, deps } = options
  const { events, checkpoints } = store

  async function newest(): Promise<Checkpoint | 'none' | 'unsigned'> {
    const [kept] = await checkpoints.list({ limit: 1 })
    if (!kept) return 'none'
    return (await readCheckpoint(kept.jwt, findKey)) ?? 'unsigned'
  }

  async function trustedHeads(): Promise<CurrentHeads> {
    const last = await newest()
    if (last === 'none') return { heads: [], starts: [] }
    if (last === 'unsigned')
      return { heads: [], starts: [], fault: 'The newest checkpoint is not signed by a key of gateway.' }
    const [kept] = await checkpoints.list({ limit: 1, beforeMs: last.atMs - EVENT_RETENTION_MS + 1 })
    const trusted = await trustedHeadsOf([last], kept ? [kept.jwt] : [])
    if (!kept) return trusted
    return trusted.starts.length > 0
      ? { ...trusted, prunedToMs: kept.atMs }
      : { ...trusted, fault: 'The checkpoint at which the chains begin is not signed by gateway.' }
  }

  /** Whether the store has neither an older checkpoint nor an event that monitor received before that time. */
  async function isNewSince(atMs: number): Promise<boolean> {
    const older = await checkpoints.list({ limit: 1, beforeMs: atMs })
    const firsts = await Promise.all(CHAINS.map((chain) => events.after(new Map([[chain, 0]]), 1)))
    // A checkpoint's time is in whole seconds: what was received within its second may be older.
    const isNew = (first: StoredEvent) => first.seq === 1 && Date.parse(show(first).receivedAt) >= atMs + 1000
    return older.length === 0 && firsts.flat().every(isNew)
  }

  return {
    async heads() {
      const tails = await Promise.all(CHAINS.map((chain) => events.tail(chain)))
      return CHAINS.flatMap((chain, index) => {
        const tail = tails[index]
        return tail ? [{ chain, ...tail }] : []
      })
    },

    trustedHeads,

    async keep(jwt) {
      const last = await newest()
      // A checkpoint that was lost here and kept elsewhere is welcome, even if its key is no longer in use.
      const known = typeof last === 'string' ? [] : last.keys
      const checkpoint = (await readCheckpoint(jwt, findKey)) ?? (await readCheckpoint(jwt, keySet(known)))
      if (!checkpoint) throw refused('is not signed by a key of gateway')
      const { atMs, heads } = checkpoint
      if (atMs > deps.now() + MAX_AHEAD_MS) throw refused('has a time in the future')
      await checkpoints.keep({ atMs, jwt })
      const starts = new Map((await trustedHeads()).starts.map(({ chain, seq }) => [chain, seq]))
      const due = heads.filter(({ chain, seq }) => seq >= (starts.get(chain) ?? 0))
      const found = await Promise.all(due.map((head) => hasEvent(events, head)))
      const missing = due.filter((_, index) => !found[index])
      return { missing, storeIsNew: missing.length === heads.length && (await isNewSince(atMs)) }
    },
  }
}

/** Whether the chain has this event. */
export async function hasEvent(events: Pick<Events, 'after'>, { chain, seq, hash }: ChainHead): Promise<boolean> {
  const [found] = await events.after(new Map([[chain, seq - 1]]), 1)
  return found?.seq === seq && found.hash === hash
}

function refused(detail: string): Problem {
  return new Problem('invalid-input', undefined, { errors: [{ pointer: '#/checkpoint', detail }] })
}
