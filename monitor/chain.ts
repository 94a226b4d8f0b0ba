import type { NewEvent, StoredEvent, Tail } from './events/events.ts'
import { fieldsOfText } from './events/record.ts'

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
  readonly firstBad?: { readonly seq: number; readonly id: string; readonly fault: string }
}

export interface Verified {
  readonly chains: readonly ChainReport[]
  /** Where the rest begins, if it stopped before the end. */
  readonly stoppedAt?: Tail & { readonly chain: string }
}

/** Far more than there are, so that a store which someone filled with foreign chains cannot fill the memory. */
const MAX_CHAINS = 1000

/**
 * Goes through events in the order of (chain, seq) and says of each chain whether it is whole: every link, every hash, and
 * every field against the text that it follows from. It holds one page at a time, and stops early, at the end of a page,
 * once `enough` says so; `after` is where an earlier one stopped.
 */
export async function verify(
  pages: AsyncIterable<readonly StoredEvent[]>,
  options: { after?: (Tail & { readonly chain: string }) | undefined; enough?: () => boolean } = {},
): Promise<Verified> {
  const { after, enough } = options
  const chains = new Map<string, ChainReport>()
  let before = after
  for await (const page of pages) {
    for (const event of page) {
      const tail = before?.chain === event.chain ? before : START
      const report = chains.get(event.chain)
      const fault = report?.firstBad ? undefined : faultOf(tail, event)
      chains.set(event.chain, {
        chain: event.chain,
        events: (report?.events ?? 0) + 1,
        head: { seq: event.seq, hash: event.hash },
        ...(report?.firstBad && { firstBad: report.firstBad }),
        ...(fault && { firstBad: { seq: event.seq, id: event.id, fault } }),
      })
      before = event
    }
    if (before && (enough?.() || chains.size > MAX_CHAINS)) {
      const { chain, seq, hash } = before
      return { chains: [...chains.values()], stoppedAt: { chain, seq, hash } }
    }
  }
  return { chains: [...chains.values()] }
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
