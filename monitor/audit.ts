import type { Deps } from '@posta/common/service/deps.ts'
import { decodeCursor, encodeCursor } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import * as v from 'valibot'
import { verify } from './chain.ts'
import type { Events } from './events/events.ts'

const Head = v.object({ seq: v.number(), hash: v.string() })

export const Audit = v.object({
  ok: v.pipe(v.boolean(), v.metadata({ description: 'No chain that was looked at has a fault.' })),
  events: v.number(),
  chains: v.array(
    v.object({
      chain: v.string(),
      events: v.number(),
      head: v.pipe(
        Head,
        v.metadata({
          description: 'The end of the chain. Kept elsewhere, it later shows whether the end was cut off.',
        }),
      ),
      firstBad: v.optional(v.object({ seq: v.number(), id: v.string(), fault: v.string() })),
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
 * Verifies every chain; where that takes more than 20 s, a part of them, to be gone on with at `next`.
 * @throws Problem `malformed-request`, or `overloaded` while two others are under way.
 */
export function createAudit(events: Pick<Events, 'inChainOrder'>, deps: Pick<Deps, 'monotonicMs'>) {
  let underWay = 0
  return async (cursor: string | undefined, left: AbortSignal): Promise<Audit> => {
    const after = decodeCursor(Position, cursor)
    if (underWay >= MAX_AT_ONCE)
      throw new Problem('overloaded', 'Others are verifying the chains.', { retryAfterS: MAX_MS / 1000 })
    const startedMs = deps.monotonicMs()
    const enough = () => left.aborted || deps.monotonicMs() - startedMs > MAX_MS
    underWay++
    try {
      const { chains, stoppedAt } = await verify(events.inChainOrder(after), { after, enough })
      return {
        ok: chains.every(({ firstBad }) => !firstBad),
        events: chains.reduce((sum, chain) => sum + chain.events, 0),
        chains: [...chains],
        ...(stoppedAt && { next: encodeCursor(stoppedAt) }),
      }
    } finally {
      underWay--
    }
  }
}
