import { type ChainHead, type Checkpoint, keySet, ownKeys, readCheckpoint } from '@posta/common/messages/checkpoint.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { FindKey, PublicKey } from '@posta/common/service/tokens.ts'
import type { Events } from '../events/events.ts'
import type { Store } from '../store/store.ts'
import { CHAINS, type Witness } from './chain.ts'

const DAY_MS = 24 * 60 * 60 * 1000

/**
 * How long an event is kept at least. No clock of monitor's decides: an event may go once a checkpoint that names it, or
 * one behind it, is so much older than the newest checkpoint. Thus no wrong clock here, and no one who can write to the
 * store but not sign, can make an event go before its time without `verify` saying so.
 */
export const EVENT_RETENTION_MS = 400 * DAY_MS

/** Two machines' clocks may differ by so much. */
const MAX_AHEAD_MS = DAY_MS

/**
 * What checkpoints say of the chains.
 * @param trusted whose signatures are known to be gateway's
 * @param others as they were kept; the newest trusted one has the keys that tell which of them gateway has signed
 */
export async function witnessOf(trusted: readonly Checkpoint[], others: readonly string[]): Promise<Witness> {
  const newest = trusted.toSorted((a, b) => a.atMs - b.atMs).at(-1)
  if (!newest) return { heads: [], starts: [] }
  const read = await Promise.all(others.map((jwt) => readCheckpoint(jwt, keySet(newest.keys))))
  const prunedTo = read
    .filter((each) => each !== undefined)
    .filter(({ atMs }) => atMs <= newest.atMs - EVENT_RETENTION_MS)
    .toSorted((a, b) => a.atMs - b.atMs)
    .at(-1)
  return { heads: trusted.flatMap(({ heads }) => heads), starts: prunedTo?.heads ?? [] }
}

/**
 * What the checkpoints of a store or of an export say to who has something from elsewhere: `kept`, a checkpoint, or `keys`,
 * gateway's, or both. With neither, nothing can be believed.
 * @param checkpoints of the store, newest first
 * @throws Error where none of the keys has signed `kept`
 */
export async function witnessFrom(
  { kept, keys }: { kept?: string | undefined; keys?: readonly PublicKey[] | undefined },
  checkpoints: readonly string[],
): Promise<Witness & { readonly newestMs?: number }> {
  const believed = keys ?? ownKeys(kept ?? '')
  const own = kept === undefined ? undefined : await readCheckpoint(kept, keySet(believed))
  if (kept !== undefined && !own)
    throw new Error(
      keys ? 'None of the keys has signed the checkpoint.' : 'The checkpoint is damaged: its signature is not valid.',
    )
  const trusted = own ? [own] : []
  const findKey = keySet([...believed, ...(own?.keys ?? [])])
  for (const jwt of checkpoints) {
    const newest = await readCheckpoint(jwt, findKey)
    if (!newest) continue
    trusted.push(newest)
    break
  }
  const witness = await witnessOf(trusted, checkpoints)
  return trusted.length > 0 ? { ...witness, newestMs: Math.max(...trusted.map(({ atMs }) => atMs)) } : witness
}

export interface CurrentWitness extends Witness {
  /** Of the newest checkpoint. */
  readonly atMs?: number
  /** Of the checkpoint before which all may be pruned. */
  readonly prunedToMs?: number
  /** Why a checkpoint that is there cannot be used. */
  readonly fault?: string
}

export interface TrustedHeads {
  /** The end of each chain that has any event: what gateway signs. */
  heads(): Promise<ChainHead[]>
  /** What the store's own checkpoints say. @throws Problem `keys-unavailable` */
  current(): Promise<CurrentWitness>
  /**
   * Keeps a checkpoint. Resolves with those of its heads that the chains do not hold, though they should: then the store
   * was cut off, replaced by an old copy, or made anew.
   * @throws Problem `invalid-input` where gateway has not signed it, or it is of a time to come; `keys-unavailable`
   */
  keep(jwt: string): Promise<ChainHead[]>
}

export function createTrustedHeads(parts: {
  store: Pick<Store, 'events' | 'checkpoints'>
  findKey: FindKey
  deps: Pick<Deps, 'now'>
}): TrustedHeads {
  const { store, findKey, deps } = parts
  const { events, checkpoints } = store

  async function newest(): Promise<Checkpoint | 'none' | 'unsigned'> {
    const [kept] = await checkpoints.list({ limit: 1 })
    if (!kept) return 'none'
    return (await readCheckpoint(kept.jwt, findKey)) ?? 'unsigned'
  }

  async function current(): Promise<CurrentWitness> {
    const last = await newest()
    if (last === 'none') return { heads: [], starts: [] }
    if (last === 'unsigned')
      return { heads: [], starts: [], fault: 'The newest checkpoint is not signed by a key of gateway.' }
    const [kept] = await checkpoints.list({ limit: 1, beforeMs: last.atMs - EVENT_RETENTION_MS + 1 })
    const witness = await witnessOf([last], kept ? [kept.jwt] : [])
    if (!kept) return { ...witness, atMs: last.atMs }
    return witness.starts.length > 0
      ? { ...witness, atMs: last.atMs, prunedToMs: kept.atMs }
      : { ...witness, atMs: last.atMs, fault: 'The checkpoint at which the chains begin is not signed by gateway.' }
  }

  return {
    async heads() {
      const tails = await Promise.all(CHAINS.map((chain) => events.tail(chain)))
      return CHAINS.flatMap((chain, index) => {
        const tail = tails[index]
        return tail ? [{ chain, ...tail }] : []
      })
    },

    current,

    async keep(jwt) {
      const last = await newest()
      // One that was lost here and kept elsewhere is welcome, also if its key is no longer in use.
      const known = typeof last === 'string' ? [] : last.keys
      const checkpoint = (await readCheckpoint(jwt, findKey)) ?? (await readCheckpoint(jwt, keySet(known)))
      if (!checkpoint) throw refused('is not signed by a key of gateway')
      if (checkpoint.atMs > deps.now() + MAX_AHEAD_MS) throw refused('is of a time to come')
      await checkpoints.keep({ atMs: checkpoint.atMs, jwt })
      const starts = new Map((await current()).starts.map(({ chain, seq }) => [chain, seq]))
      const due = checkpoint.heads.filter(({ chain, seq }) => seq >= (starts.get(chain) ?? 0))
      const held = await Promise.all(due.map((head) => hasEvent(events, head)))
      return due.filter((_, index) => !held[index])
    },
  }
}

/** Whether the event is in its chain. */
export async function hasEvent(events: Pick<Events, 'after'>, { chain, seq, hash }: ChainHead): Promise<boolean> {
  const [found] = await events.after(new Map([[chain, seq - 1]]), 1)
  return found?.seq === seq && found.hash === hash
}

function refused(detail: string): Problem {
  return new Problem('invalid-input', undefined, { errors: [{ pointer: '#/checkpoint', detail }] })
}
