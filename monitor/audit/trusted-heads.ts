import { type Checkpoint, keySet, ownKeys, readCheckpoint } from '@posta/common/messages/checkpoint.ts'
import type { PublicKey } from '@posta/common/service/tokens.ts'
import type { TrustedHeads } from './chain.ts'

/**
 * How long an event is kept at least. No clock of monitor's decides: an event may be pruned once a checkpoint that names it,
 * or a later event of its chain, is so much older than the newest checkpoint. So neither a wrong clock here, nor someone who
 * can write to the store but not sign, can make an event go early without `verify` reporting it.
 */
export const EVENT_RETENTION_MS = 400 * 24 * 60 * 60 * 1000

/** Trusted heads, and the time of the newest checkpoint that they come from; undefined where there is none. */
export interface DatedHeads extends TrustedHeads {
  readonly atMs?: number
}

/**
 * What checkpoints say about the chains.
 * @param trusted checkpoints that gateway is known to have signed
 * @param others JWTs; the newest trusted checkpoint has the keys that tell which of them gateway has signed
 */
export async function trustedHeadsOf(trusted: readonly Checkpoint[], others: readonly string[]): Promise<DatedHeads> {
  const newest = newestOf(trusted)
  if (!newest) return { heads: [], starts: [] }
  const signed = await Promise.all(others.map((jwt) => readCheckpoint(jwt, keySet(newest.keys))))
  const prunedTo = newestOf(
    signed.filter((each) => each !== undefined).filter(({ atMs }) => atMs <= newest.atMs - EVENT_RETENTION_MS),
  )
  return { heads: trusted.flatMap(({ heads }) => heads), starts: prunedTo?.heads ?? [], atMs: newest.atMs }
}

/**
 * What the checkpoints of a store or of an export say, judged by what was kept elsewhere: a checkpoint, gateway's keys, or
 * both. With neither, no checkpoint can be trusted.
 * @param checkpoints of the store, newest first
 * @throws Error where none of the keys has signed `kept`
 */
export async function trustedHeadsFrom(
  { kept, keys }: { kept?: string | undefined; keys?: readonly PublicKey[] | undefined },
  checkpoints: readonly string[],
): Promise<DatedHeads> {
  const trustedKeys = keys ?? ownKeys(kept ?? '')
  const own = kept === undefined ? undefined : await readCheckpoint(kept, keySet(trustedKeys))
  if (kept !== undefined && !own)
    throw new Error(
      keys ? 'None of the keys has signed the checkpoint.' : 'The checkpoint is damaged: its signature is not valid.',
    )
  const trusted = own ? [own] : []
  const findKey = keySet([...trustedKeys, ...(own?.keys ?? [])])
  for (const jwt of checkpoints) {
    const newest = await readCheckpoint(jwt, findKey)
    if (!newest) continue
    trusted.push(newest)
    break
  }
  return trustedHeadsOf(trusted, checkpoints)
}

function newestOf(checkpoints: readonly Checkpoint[]): Checkpoint | undefined {
  return checkpoints.toSorted((a, b) => a.atMs - b.atMs).at(-1)
}
