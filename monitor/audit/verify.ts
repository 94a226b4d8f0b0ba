import type { Deps } from '@posta/common/service/deps.ts'
import { decodeCursor, encodeCursor } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import * as v from 'valibot'
import type { Events } from '../events/events.ts'
import { ChainReport, verify } from './chain.ts'
import type { CurrentHeads } from './signed-checkpoints.ts'

export const Audit = v.object({
  ok: v.pipe(
    v.boolean(),
    v.metadata({ description: 'No chain that was checked has a fault, and no checkpoint has one.' }),
  ),
  events: v.number(),
  checkpoint: v.optional(
    v.pipe(
      v.string(),
      v.metadata({ description: 'The time of the newest checkpoint. The chains must have every event that it names.' }),
    ),
  ),
  fault: v.optional(v.pipe(v.string(), v.metadata({ description: 'Why a checkpoint cannot be used.' }))),
  chains: v.array(ChainReport),
  next: v.optional(
    v.pipe(v.string(), v.metadata({ description: 'Time ran out before the end: send this as `cursor` to go on.' })),
  ),
})
export type Audit = v.InferOutput<typeof Audit>

/** The last event that was checked. */
const Position = v.object({ chain: v.string(), seq: v.number(), hash: v.string() })

/** Well within the time that clients and proxies wait for an answer. */
const MAX_MS = 20_000
const MAX_AT_ONCE = 2

/**
 * Verifies every chain, also against the store's own checkpoints. After 20 s it stops; `next` is where to go on. It also
 * stops when `left` aborts: the caller has gone.
 * @throws Problem `malformed-request` for a cursor that it did not give; `overloaded` while two others run
 */
export function createAudit(options: {
  events: Pick<Events, 'inChainOrder'>
  trustedHeads: () => Promise<CurrentHeads>
  deps: Pick<Deps, 'monotonicMs'>
}) {
  const { events, trustedHeads, deps } = options
  let running = 0
  return async (cursor: string | undefined, left: AbortSignal): Promise<Audit> => {
    const after = decodeCursor(Position, cursor)
    if (running >= MAX_AT_ONCE)
      throw new Problem('overloaded', 'Others are verifying the chains.', { retryAfterS: MAX_MS / 1000 })
    const startedMs = deps.monotonicMs()
    const enough = () => left.aborted || deps.monotonicMs() - startedMs > MAX_MS
    running++
    try {
      const { atMs, fault, ...known } = await trustedHeads()
      const { chains, stoppedAt } = await verify(events.inChainOrder(after), { after, enough, trustedHeads: known })
      return {
        ok: fault === undefined && chains.every(({ firstBad }) => !firstBad),
        events: chains.reduce((sum, chain) => sum + chain.events, 0),
        ...(atMs !== undefined && { checkpoint: new Date(atMs).toISOString() }),
        ...(fault !== undefined && { fault }),
        chains,
        ...(stoppedAt && { next: encodeCursor(stoppedAt) }),
      }
    } finally {
      running--
    }
  }
}
