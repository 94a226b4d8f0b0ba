import type { Deps } from '@posta/common/service/deps.ts'
import { decodeCursor, encodeCursor } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import * as v from 'valibot'
import type { Events } from '../events/events.ts'
import { verify } from './chain.ts'
import type { TrustedHeads } from './trusted-heads.ts'

const Head = v.object({ seq: v.number(), hash: v.string() })

export const Audit = v.object({
  ok: v.pipe(v.boolean(), v.metadata({ description: 'No chain that was looked at has a fault, and no checkpoint.' })),
  events: v.number(),
  checkpoint: v.optional(
    v.pipe(
      v.string(),
      v.metadata({ description: 'Of when the newest checkpoint is: what it names must be in the chains.' }),
    ),
  ),
  fault: v.optional(v.pipe(v.string(), v.metadata({ description: 'Why a checkpoint cannot be used.' }))),
  chains: v.array(
    v.object({
      chain: v.string(),
      events: v.number(),
      head: v.pipe(Head, v.metadata({ description: 'The end of the chain.' })),
      firstBad: v.optional(v.object({ seq: v.number(), id: v.optional(v.string()), fault: v.string() })),
    }),
  ),
  next: v.optional(
    v.pipe(v.string(), v.metadata({ description: 'There was no time for the rest: the `cursor` to go on with.' })),
  ),
})
export type Audit = v.InferOutput<typeof Audit>

/** The last event that was looked at. */
const Position = v.object({ chain: v.string(), ...Head.entries })

/** Well within the time that clients and proxies wait for an answer. */
const MAX_MS = 20_000
const MAX_AT_ONCE = 2

/**
 * Verifies every chain, also against the store's own checkpoints; where that takes more than 20 s, a part of them, to be gone on with at `next`.
 * @throws Problem `malformed-request`, or `overloaded` while two others are under way.
 */
export function createAudit(parts: {
  events: Pick<Events, 'inChainOrder'>
  trustedHeads: Pick<TrustedHeads, 'current'>
  deps: Pick<Deps, 'monotonicMs'>
}) {
  const { events, trustedHeads, deps } = parts
  let underWay = 0
  return async (cursor: string | undefined, left: AbortSignal): Promise<Audit> => {
    const after = decodeCursor(Position, cursor)
    if (underWay >= MAX_AT_ONCE)
      throw new Problem('overloaded', 'Others are verifying the chains.', { retryAfterS: MAX_MS / 1000 })
    const startedMs = deps.monotonicMs()
    const enough = () => left.aborted || deps.monotonicMs() - startedMs > MAX_MS
    underWay++
    try {
      const { atMs, fault, ...witness } = await trustedHeads.current()
      const { chains, stoppedAt } = await verify(events.inChainOrder(after), { after, enough, witness })
      return {
        ok: fault === undefined && chains.every(({ firstBad }) => !firstBad),
        events: chains.reduce((sum, chain) => sum + chain.events, 0),
        ...(atMs !== undefined && { checkpoint: new Date(atMs).toISOString() }),
        ...(fault !== undefined && { fault }),
        chains: [...chains],
        ...(stoppedAt && { next: encodeCursor(stoppedAt) }),
      }
    } finally {
      underWay--
    }
  }
}
