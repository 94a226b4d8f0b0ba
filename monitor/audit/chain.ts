import type { ChainHead } from '@posta/common/messages/checkpoint.ts'
import { topicSettings, topics } from '@posta/common/messages/topics.ts'
import * as v from 'valibot'
import type { NewEvent, StoredEvent, Tail } from '../events/events.ts'
import { fieldsOfText } from '../events/record.ts'

/** The name of every chain: one for each partition of each topic that has events. */
export const CHAINS: readonly string[] = [topics.requests, topics.results, topics.events].flatMap((topic) =>
  Array.from({ length: topicSettings[topic].partitions }, (_, partition) => `${topic}/${partition}`),
)

/** The tail that the first event of a chain follows. */
export const START: Tail = { seq: 0, hash: '0'.repeat(64) }

/**
 * The hash of an event: SHA-256, in lower-case hexadecimal, over these fields in UTF-8, separated by line feeds: the words
 * `posta audit chain 1`, the chain's name, `seq` in decimal, the hash of the event before (64 zeros before the first), and
 * the text. Only the text can contain a line feed, so no two events give the same bytes.
 *
 * Whoever changes, removes, inserts or moves an event inside a chain must compute every later hash anew, and the chain then
 * ends in another hash. The chain alone cannot show that its end was cut off: for that, keep a checkpoint elsewhere.
 */
export function hashOf(event: Pick<StoredEvent, 'chain' | 'seq' | 'previousHash' | 'text'>): string {
  const { chain, seq, previousHash, text } = event
  return Bun.SHA256.hash(`posta audit chain 1\n${chain}\n${seq}\n${previousHash}\n${text}`, 'hex')
}

/** The events, numbered and hashed as the next ones after the tail of their chain. */
export function link(tail: Tail, events: readonly NewEvent[]): StoredEvent[] {
  let { seq, hash } = tail
  return events.map((event) => {
    const linked = { ...event, seq: seq + 1, previousHash: hash }
    seq = linked.seq
    hash = hashOf(linked)
    return { ...linked, hash }
  })
}

/** The first bad event has no `id` if it is missing. */
export const ChainReport = v.object({
  chain: v.string(),
  events: v.pipe(v.number(), v.metadata({ description: 'How many were checked.' })),
  head: v.pipe(
    v.object({ seq: v.number(), hash: v.string() }),
    v.metadata({ description: 'The last event that was checked.' }),
  ),
  firstBad: v.optional(v.object({ seq: v.number(), id: v.optional(v.string()), fault: v.string() })),
})
export type ChainReport = v.InferOutput<typeof ChainReport>

/** What signed checkpoints say about the chains. */
export interface TrustedHeads {
  /** The events that must be in the chains. */
  readonly heads: readonly ChainHead[]
  /** Where chains begin since older events were pruned. Older events that are still there are skipped. */
  readonly starts: readonly ChainHead[]
}

export interface Verified {
  readonly chains: ChainReport[]
  /** The last event that was checked, if the walk stopped before the end. */
  readonly stoppedAt?: ChainHead
}

/** Many more than there are. A store that someone filled with foreign chains cannot fill the memory. */
const MAX_CHAINS = 1000

/**
 * Walks through events in the order of (chain, seq) and reports of each chain whether it is whole. It checks every link,
 * every hash, every field against the text that it follows from, and the trusted heads. It holds one page at a time.
 * @param options.after the `stoppedAt` of the walk that this one continues
 * @param options.enough asked after each page: true stops the walk
 */
export async function verify(
  pages: AsyncIterable<readonly StoredEvent[]>,
  options: { after?: ChainHead | undefined; enough?: () => boolean; trustedHeads?: TrustedHeads } = {},
): Promise<Verified> {
  const { after, enough, trustedHeads = { heads: [], starts: [] } } = options
  const chains = new Map<string, ChainReport>()
  const startSeqs = new Map(trustedHeads.starts.map(({ chain, seq }) => [chain, seq]))
  const trusted = Map.groupBy([...trustedHeads.heads, ...trustedHeads.starts], ({ chain }) => chain)
  let before = after
  let stoppedAt: ChainHead | undefined
  for await (const page of pages) {
    for (const event of page) {
      const { chain, seq, hash, previousHash } = event
      const startSeq = startSeqs.get(chain) ?? 0
      // The event that a pruned chain begins with follows one that is gone.
      const tail = seq === startSeq ? { seq: seq - 1, hash: previousHash } : before?.chain === chain ? before : START
      before = { chain, seq, hash }
      if (seq < startSeq) continue
      const report = chains.get(chain)
      const fault = report?.firstBad ? undefined : (faultOf(tail, event) ?? contradiction(trusted.get(chain), event))
      const firstBad = fault === undefined ? report?.firstBad : { seq, id: event.id, fault }
      chains.set(chain, {
        chain,
        events: (report?.events ?? 0) + 1,
        head: { seq, hash },
        ...(firstBad && { firstBad }),
      })
    }
    if (before && (enough?.() || chains.size > MAX_CHAINS)) {
      stoppedAt = before
      break
    }
  }
  for (const [chain, heads] of trusted) {
    // The end of an earlier chain was seen by the walk before this one; that of a later chain will be by the next.
    if ((after && chain < after.chain) || (stoppedAt && chain >= stoppedAt.chain)) continue
    const report: ChainReport = chains.get(chain) ?? { chain, events: 0, head: after?.chain === chain ? after : START }
    const lastSeq = Math.max(...heads.map((head) => head.seq))
    if (report.firstBad || lastSeq <= report.head.seq) continue
    const { seq, hash } = report.head
    const fault = `It is missing, and so are all after it: a checkpoint names number ${lastSeq} of this chain.`
    const firstBad = { seq: Math.max(seq + 1, startSeqs.get(chain) ?? 1), fault }
    chains.set(chain, { chain, events: report.events, head: { seq, hash }, firstBad })
  }
  return { chains: [...chains.values()], ...(stoppedAt && { stoppedAt }) }
}

function contradiction(heads: readonly ChainHead[] | undefined, event: StoredEvent): string | undefined {
  return heads?.some(({ seq, hash }) => seq === event.seq && hash !== event.hash)
    ? 'A checkpoint names another hash here: this event, or one before it, was replaced, and every hash after that.'
    : undefined
}

/** What is wrong with an event that comes after `tail`. */
function faultOf(tail: Tail, event: StoredEvent): string | undefined {
  if (event.seq !== tail.seq + 1) return `It follows number ${tail.seq}: the events between are missing.`
  if (event.previousHash !== tail.hash) return 'Its previous hash is not the hash of the event before it.'
  if (event.hash !== hashOf(event)) return 'Its hash is not that of its text: one of the two was changed.'
  try {
    const fields = fieldsOfText(event.text)
    const changed = FIELDS.find((name) => fields[name] !== event[name])
    return changed && `Its ${changed} is not the one in its text.`
  } catch {
    return 'Its text cannot be read.'
  }
}

const FIELDS = ['id', 'type', 'timeMs', 'minute', 'user', 'operation', 'durationMs', 'chain'] as const
