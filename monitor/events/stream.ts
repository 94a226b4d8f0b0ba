import { setImmediate } from 'node:timers/promises'
import type { Clock } from '@posta/common/service/clock.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { ServerSentEvent } from '@posta/common/service/stream.ts'
import { CHAINS } from '../audit/chain.ts'
import type { EventFilter, Events, StoredEvent } from './events.ts'
import { type ShownEvent, show } from './show.ts'

const filterNames = ['type', 'user', 'operation'] as const
export type StreamFilter = Pick<EventFilter, (typeof filterNames)[number]>

export interface EventStream {
  /**
   * The events that are stored from now on, by whichever replica, or all after `lastEventId`: each once, in the order of
   * its chain, with an id to go on from. A client takes them at its own pace; none is left out, however slow it is.
   * `ready` comes first, or `skipped` where more than 10,000 were stored since `lastEventId`; those are not sent. `end`
   * comes last, once `signal` aborts or 15 minutes have passed.
   * @param user who follows: one user has at most 20 streams of the 100
   * @throws Problem `too-many-requests` with too many of the user's own, `overloaded` with too many clients,
   * `malformed-request` where the id is not one of this stream
   */
  follow(
    user: string,
    filter: StreamFilter,
    lastEventId?: string,
  ): Promise<(signal: AbortSignal) => AsyncGenerator<ServerSentEvent, void>>
  /** Called after events were stored: clients that wait look for them at once. */
  wake(): void
}

/** How far a client has read: the `seq` of its last event in each chain. */
type Position = ReadonlyMap<string, number>

/** The events that one read found, and the position after them. */
interface Page {
  readonly events: readonly { readonly event: 'event'; readonly id: string; readonly data: ShownEvent }[]
  readonly end: Position
}

const MAX_CLIENTS = 100
/** So that one operator cannot take all places. */
const MAX_CLIENTS_PER_USER = 20
/** As long as an access token lives: a client must show again that its user still is an operator. */
const MAX_STREAM_MS = 15 * 60 * 1000
const MAX_REPLAYED = 10_000
const POLL_MS = 250
const POLL_AFTER_FAILURE_MS = 2000
/** A client holds one page at most. */
const PAGE_EVENTS = 100
const PAGE_CHARACTERS = 1_000_000

/**
 * Each client reads the store, page by page, as fast as it takes the events. At the end it waits for `wake`, or for a poll,
 * since other replicas store events too. All who wait share the poll, and clients at the same position share a page: a
 * hundred clients that keep up cost the store what one costs.
 */
export function createStream(options: {
  events: Pick<Events, 'after' | 'tail'>
  deps: Pick<Clock, 'monotonicMs'>
  log: Pick<Logger, 'warn'>
}): EventStream {
  const { events, deps, log } = options
  let clients = 0
  const perUser = new Map<string, number>()
  /** The last page that was read since the last `wake` or poll. */
  let last: { readonly after: string; readonly page: Promise<Page> } | undefined
  let woken = Promise.withResolvers<void>()
  let poll: ReturnType<typeof setTimeout> | undefined
  let pollMs = POLL_MS

  /** Takes a place. Returns the function that leaves it, for one call. */
  function enter(user: string): () => void {
    const own = perUser.get(user) ?? 0
    if (own >= MAX_CLIENTS_PER_USER)
      throw new Problem('too-many-requests', `You follow the events ${own} times already.`, { retryAfterS: 5 })
    if (clients >= MAX_CLIENTS)
      throw new Problem('overloaded', 'Too many clients follow the events.', { retryAfterS: 5 })
    clients += 1
    perUser.set(user, own + 1)
    return () => {
      const left = (perUser.get(user) ?? 1) - 1
      if (left > 0) perUser.set(user, left)
      else perUser.delete(user)
      clients -= 1
    }
  }

  function wake(): void {
    clearTimeout(poll)
    poll = undefined
    last = undefined
    woken.resolve()
    woken = Promise.withResolvers()
  }

  function pageAfter(position: Position): Promise<Page> {
    const after = toId(position)
    if (last?.after !== after) last = { after, page: read(position) }
    return last.page
  }

  async function read(position: Position): Promise<Page> {
    // An embedded store answers synchronously: others get their turn between two pages.
    await setImmediate()
    const startedMs = deps.monotonicMs()
    try {
      const found = await events.after(position, PAGE_EVENTS)
      // A store that answers slowly is asked less often.
      pollMs = Math.max(POLL_MS, deps.monotonicMs() - startedMs)
      return toPage(found, position)
    } catch (error) {
      log.warn({ err: error }, 'the event stream cannot read the store; it tries again')
      pollMs = POLL_AFTER_FAILURE_MS
      return { events: [], end: position }
    }
  }

  async function* send(
    first: ServerSentEvent,
    from: Position,
    { filter, left, leave }: { filter: StreamFilter; left: AbortSignal; leave: () => void },
  ) {
    const signal = AbortSignal.any([left, AbortSignal.timeout(MAX_STREAM_MS)])
    signal.addEventListener('abort', wake)
    try {
      yield first
      let position = from
      while (!signal.aborted) {
        // Taken before the page is read, so that no `wake` in between is missed.
        const { promise: more } = woken
        const page = await pageAfter(position)
        for (const event of page.events) {
          if (signal.aborted) break
          if (fits(event.data, filter)) yield event
        }
        position = page.end
        if (page.events.length > 0) continue
        poll ??= setTimeout(wake, pollMs)
        await more
      }
      yield { event: 'end', data: { reason: 'Connect again, with a fresh access token and Last-Event-ID.' } }
    } finally {
      leave()
    }
  }

  async function currentEnd(): Promise<Position> {
    const ends = CHAINS.map(async (chain) => [chain, (await events.tail(chain))?.seq ?? 0] as const)
    return new Map(await Promise.all(ends))
  }

  return {
    async follow(user, filter, lastEventId) {
      const asked = lastEventId === undefined ? undefined : fromId(lastEventId)
      const leave = enter(user)
      try {
        const end = await currentEnd()
        // The id of another store may be ahead of this one.
        const from = new Map([...end].map(([chain, seq]) => [chain, Math.min(seq, asked?.get(chain) ?? seq)]))
        const missed = count(end) - count(from)
        return missed > MAX_REPLAYED
          ? (left) => send({ event: 'skipped', id: toId(end), data: { events: missed } }, end, { filter, left, leave })
          : (left) => send({ event: 'ready', id: toId(from), data: {} }, from, { filter, left, leave })
      } catch (error) {
        leave()
        throw error
      }
    },
    wake,
  }
}

function toPage(found: readonly StoredEvent[], from: Position): Page {
  const end = new Map(from)
  const events: Page['events'][number][] = []
  let characters = 0
  for (const event of found) {
    characters += event.text.length
    // The rest is read again, once there is room for it.
    if (events.length > 0 && characters > PAGE_CHARACTERS) break
    end.set(event.chain, event.seq)
    events.push({ event: 'event', id: toId(end), data: show(event) })
  }
  return { events, end }
}

function fits(event: ShownEvent, filter: StreamFilter): boolean {
  return filterNames.every((name) => filter[name] === undefined || filter[name] === event[name])
}

function count(position: Position): number {
  return position.values().reduce((sum, seq) => sum + seq, 0)
}

/** The `seq` of every chain, in the order of `CHAINS`: it means the same to every replica, and after a restart. */
function toId(position: Position): string {
  return CHAINS.map((chain) => position.get(chain) ?? 0).join('.')
}

function fromId(id: string): Position {
  const seqs = id.split('.')
  if (seqs.length !== CHAINS.length || !seqs.every((seq) => /^\d{1,15}$/.test(seq)))
    throw new Problem('malformed-request', '`Last-Event-ID` is not an id that this stream gave.')
  return new Map(CHAINS.map((chain, index) => [chain, Number(seqs[index])]))
}
