import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { ServerSentEvent } from '@posta/common/service/stream.ts'
import { CHAINS } from '../audit/chain.ts'
import type { EventFilter, Events, StoredEvent } from './events.ts'
import { show } from './record.ts'

export type StreamFilter = Pick<EventFilter, 'type' | 'user' | 'operation'>

export interface EventStream {
  /**
   * The events that are stored from now on, by whichever replica, or from where the client says that it was. Each has an
   * id to go on from. `skipped` says how many were too many to be sent again; `overrun` that the client reads too slowly,
   * `end` that it should connect anew: after both the stream ends.
   * @throws Problem `overloaded` with too many clients, `malformed-request` where the id is none of ours.
   */
  follow(
    filter: StreamFilter,
    lastEventId?: string,
  ): Promise<(signal: AbortSignal) => AsyncGenerator<ServerSentEvent, void>>
  /** Events were stored here: they are looked for at once. */
  wake(): void
}

/** Where a reader of all chains is: the last `seq` that it has, by chain. */
type Position = ReadonlyMap<string, number>

interface Client {
  readonly filter: StreamFilter
  queue: { readonly sent: ServerSentEvent; readonly characters: number }[]
  queuedCharacters: number
  overrun: boolean
  wake(): void
}

const POLL_MS = 250
const POLL_AFTER_TROUBLE_MS = 2000
const PAGE = 500
const MAX_CLIENTS = 100
const MAX_QUEUED = 1000
const MAX_QUEUED_CHARACTERS = 4_000_000
const MAX_REPLAYED = 10_000
/** As long as an access token lives: whoever was an operator must show that they still are. */
const MAX_STREAM_MS = 15 * 60 * 1000

/**
 * One reader of the store per process, and only while someone listens, for all who do: replicas share the partitions, so
 * that much of what is stored comes from another one.
 */
export function createStream(parts: {
  events: Pick<Events, 'after' | 'tail'>
  deps: Pick<Deps, 'monotonicMs'>
  log: Logger
}): EventStream {
  const { events, deps, log } = parts
  const clients = new Set<Client>()
  let read: Map<string, number> | undefined
  let loading: Promise<Map<string, number>> | undefined
  let woken = false
  let endPause = () => {}

  async function loadTails(): Promise<Map<string, number>> {
    const tails = await Promise.all(CHAINS.map((chain) => events.tail(chain)))
    return new Map(CHAINS.map((chain, index) => [chain, tails[index]?.seq ?? 0]))
  }

  /** From the position that it resolves with the client gets everything: the reader goes on in no other step. */
  async function join(client: Client): Promise<Position> {
    while (!read) {
      loading ??= loadTails().finally(() => {
        loading = undefined
      })
      const loaded = await loading
      if (read) break
      read = loaded
      clients.add(client)
      void keepReading(read)
    }
    clients.add(client)
    return new Map(read)
  }

  function leave(client: Client): void {
    clients.delete(client)
    if (clients.size === 0) endPause()
  }

  async function keepReading(position: Map<string, number>): Promise<void> {
    while (clients.size > 0) {
      woken = false
      const startedMs = deps.monotonicMs()
      let pauseMs = POLL_MS
      try {
        const found = await events.after(position, PAGE)
        for (const event of found) {
          position.set(event.chain, event.seq)
          offer(event, position)
        }
        if (found.length > 0) woken = true
        // A store that answers slowly is asked less often.
        pauseMs = Math.max(POLL_MS, deps.monotonicMs() - startedMs)
      } catch (error) {
        pauseMs = POLL_AFTER_TROUBLE_MS
        woken = false
        log.warn({ err: error }, 'the event stream cannot read the store')
      }
      if (!woken && clients.size > 0) await pause(pauseMs)
    }
    read = undefined
  }

  function pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms)
      endPause = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  function offer(event: StoredEvent, position: Position): void {
    let sent: ServerSentEvent | undefined
    for (const client of clients) {
      if (client.overrun || !fits(event, client.filter)) continue
      sent ??= toSent(event, position)
      client.queue.push({ sent, characters: event.text.length })
      client.queuedCharacters += event.text.length
      if (client.queue.length > MAX_QUEUED || client.queuedCharacters > MAX_QUEUED_CHARACTERS) {
        client.overrun = true
        client.queue = []
      }
      client.wake()
    }
  }

  async function* replay(filter: StreamFilter, from: Position, until: Position): AsyncGenerator<ServerSentEvent, void> {
    const position = new Map(from)
    for (;;) {
      const behind = new Map([...position].filter(([chain, seq]) => seq < (until.get(chain) ?? 0)))
      if (behind.size === 0) return
      for (const event of await events.after(behind, PAGE)) {
        // What is further on comes with what is new.
        if (event.seq > (until.get(event.chain) ?? 0)) continue
        position.set(event.chain, event.seq)
        if (fits(event, filter)) yield toSent(event, position)
      }
    }
  }

  async function* send(
    client: Client,
    from: Position,
    joinedAt: Position,
    left: AbortSignal,
  ): AsyncGenerator<ServerSentEvent, void> {
    const signal = AbortSignal.any([left, AbortSignal.timeout(MAX_STREAM_MS)])
    signal.addEventListener('abort', () => client.wake())
    try {
      const missed = count(joinedAt) - count(from)
      if (missed > MAX_REPLAYED) {
        yield { event: 'skipped', id: toId(joinedAt), data: { events: missed } }
      } else {
        yield { event: 'ready', id: toId(from), data: {} }
        yield* replay(client.filter, from, joinedAt)
      }
      while (!signal.aborted) {
        const next = client.queue.shift()
        if (next) {
          client.queuedCharacters -= next.characters
          yield next.sent
        } else if (client.overrun) break
        else {
          await new Promise<void>((resolve) => {
            client.wake = resolve
          })
        }
      }
      if (client.overrun)
        yield { event: 'overrun', data: { reason: 'The events come faster than they are read here.' } }
      else yield { event: 'end', data: { reason: 'Connect again, with a fresh access token and Last-Event-ID.' } }
    } finally {
      leave(client)
    }
  }

  return {
    async follow(filter, lastEventId) {
      const asked = lastEventId === undefined ? undefined : fromId(lastEventId)
      if (clients.size >= MAX_CLIENTS)
        throw new Problem('overloaded', 'Too many follow the events.', { retryAfterS: 5 })
      const client: Client = { filter, queue: [], queuedCharacters: 0, overrun: false, wake: () => {} }
      const joinedAt = await join(client)
      // No client is ahead of the store, unless it speaks of another one.
      const from = new Map([...joinedAt].map(([chain, seq]) => [chain, Math.min(seq, asked?.get(chain) ?? seq)]))
      return (signal) => send(client, from, joinedAt, signal)
    },
    wake() {
      woken = true
      endPause()
    },
  }
}

function fits(event: StoredEvent, { type, user, operation }: StreamFilter): boolean {
  return (
    (type === undefined || event.type === type) &&
    (user === undefined || event.user === user) &&
    (operation === undefined || event.operation === operation)
  )
}

function toSent(event: StoredEvent, position: Position): ServerSentEvent {
  return { event: 'event', id: toId(position), data: show(event) }
}

function count(position: Position): number {
  return position.values().reduce((sum, seq) => sum + seq, 0)
}

/** The numbers of all chains in a fixed order: the only place among chains that no replica and no restart can mistake. */
function toId(position: Position): string {
  return CHAINS.map((chain) => position.get(chain) ?? 0).join('.')
}

function fromId(id: string): Position {
  const seqs = id.split('.')
  if (seqs.length !== CHAINS.length || !seqs.every((seq) => /^\d{1,15}$/.test(seq)))
    throw new Problem('malformed-request', '`Last-Event-ID` is not an id that this stream gave.')
  return new Map(CHAINS.map((chain, index) => [chain, Number(seqs[index])]))
}
