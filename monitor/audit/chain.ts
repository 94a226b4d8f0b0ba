import type { ChainHead } from '@posta/common/messages/checkpoint.ts'
import { topicSettings, topics } from '@posta/common/messages/topics.ts'
import type { NewEvent, StoredEvent, Tail } from '../events/events.ts'
import { fieldsOfText } from '../events/record.ts'

/** Every chain there is: one for each partition of each topic that events come from. */
export const CHAINS: readonly string[] = [topics.requests, topics.results, topics.events].flatMap((topic) =>
  Array.from({ length: topicSettings[topic].partitions }, (_, partition) => `${topic}/${partition}`),
)

/** What the first event of a chain follows. */
export const START: Tail = { seq: 0, hash: '0'.repeat(64) }

/**
 * The hash of an event: SHA-256, in lower-case hexadecimal, over these parts in UTF-8 with a line feed between each two:
 * the words `posta audit chain 1`, the chain's name, `seq` in decimal, the hash of the event before (64 zeros before the
 * first), and the text. No part but the last can hold a line feed, so that no two events give the same bytes.
 *
 * Whoever changes, removes, inserts or moves an event inside a chain must compute every hash after it anew, and then the
 * chain ends in another hash. What the chain alone cannot show is that its end was cut off: keep a head that `verify`
 * answered elsewhere, and compare.
 */
export function hashOf(event: Pick<StoredEvent, 'chain' | 'seq' | 'previousHash' | 'text'>): string {
  const { chain, seq, previousHash, text } = event
  return Bun.SHA256.hash(`posta audit chain 1\n${chain}\n${seq}\n${previousHash}\n${text}`, 'hex')
}

/** The events as they follow the tail of their chain. */
export function link(tail: Tail, events: readonly NewEvent[]): StoredEvent[] {
  let { seq, hash } = tail
  return events.map((event) => {
    const linked = { ...event, seq: seq + 1, previousHash: hash }
    seq = linked.seq
    hash = hashOf(linked)
    return { ...linked, hash }
  })
}

export interface ChainReport {
  readonly chain: string
  /** How many were looked at. */
  readonly events: number
  readonly head: Tail
  /** `id` is absent where the event is. */
  readonly firstBad?: { readonly seq: number; readonly id?: string; readonly fault: string }
}

/** What is known of the chains from outside the store. */
export interface Witness {
  /** What must be there: of each place the event with this hash. */
  readonly heads: readonly ChainHead[]
  /** Where chains begin since what was before was pruned. What is still there of that is passed over. */
  readonly starts: readonly ChainHead[]
}

export interface Verified {
  readonly chains: readonly ChainReport[]
  /** Where the rest begins, if it stopped before the end. */
  readonly stoppedAt?: ChainHead
}

/** Far more than there are, so that a store which someone filled with foreign chains cannot fill the memory. */
const MAX_CHAINS = 1000

/**
 * Goes through events in the order of (chain, seq) and says of each chain whether it is whole: every link, every hash,
 * every field against the text that it follows from, and what `witness` knows. It holds one page at a time, and stops
 * early, at the end of a page, once `enough` says so; `after` is where an earlier one stopped.
 */
export async function verify(
  pages: AsyncIterable<readonly StoredEvent[]>,
  options: { after?: ChainHead | undefined; enough?: () => boolean; witness?: Witness } = {},
): Promise<Verified> {
  const { after, enough, witness = { heads: [], starts: [] } } = options
  const chains = new Map<string, ChainReport>()
  const starts = new Map(witness.starts.map((place) => [place.chain, place]))
  const known = Map.groupBy([...witness.heads, ...witness.starts], ({ chain }) => chain)
  let before = after
  let stoppedAt: ChainHead | undefined
  for await (const page of pages) {
    for (const event of page) {
      const { chain, seq, hash, previousHash } = event
      const startSeq = starts.get(chain)?.seq ?? 0
      const tail = seq === startSeq ? { seq: seq - 1, hash: previousHash } : before?.chain === chain ? before : START
      before = { chain, seq, hash }
      if (seq < startSeq) continue
      const report = chains.get(chain)
      const firstBad = report?.firstBad ?? firstBadOf(event, faultOf(tail, event) ?? unlike(known.get(chain), event))
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
  for (const [chain, places] of known) {
    // Of a chain before these an earlier one has seen the end; of one behind them a later one will.
    if ((after && chain < after.chain) || (stoppedAt && chain >= stoppedAt.chain)) continue
    const report = chains.get(chain) ?? { chain, events: 0, head: after?.chain === chain ? after : START }
    const lastSeq = Math.max(...places.map(({ seq }) => seq))
    if (report.firstBad || lastSeq <= report.head.seq) continue
    const { seq, hash } = report.head
    const fault = `It is missing, as are all behind it: a checkpoint names number ${lastSeq} of this chain.`
    const firstBad = { seq: Math.max(seq + 1, starts.get(chain)?.seq ?? 1), fault }
    chains.set(chain, { chain, events: report.events, head: { seq, hash }, firstBad })
  }
  return { chains: [...chains.values()], ...(stoppedAt && { stoppedAt }) }
}

function firstBadOf({ seq, id }: StoredEvent, fault: string | undefined): ChainReport['firstBad'] {
  return fault === undefined ? undefined : { seq, id, fault }
}

function unlike(places: readonly ChainHead[] | undefined, event: StoredEvent): string | undefined {
  return places?.some(({ seq, hash }) => seq === event.seq && hash !== event.hash)
    ? 'A checkpoint names another hash here: it or one before it was replaced, with every hash from there on.'
    : undefined
}

/** What is wrong with an event that stands behind `tail`. */
function faultOf(tail: Tail, event: StoredEvent): string | undefined {
  if (event.seq !== tail.seq + 1) return `It follows number ${tail.seq}: what was between is missing.`
  if (event.previousHash !== tail.hash) return 'It names another hash than that of the event before it.'
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
