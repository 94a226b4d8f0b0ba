/** What events are looked up and counted by. All of it follows from the event's `text`; `verify` compares the two. */
export interface EventFields {
  /** CloudEvents' `id`. */
  readonly id: string
  readonly type: string
  /** When it happened, in ms since the epoch. */
  readonly timeMs: number
  /** The same in whole minutes. */
  readonly minute: number
  readonly user: string | undefined
  readonly operation: string | undefined
  /** Of a terminal operation: from its creation to its completion. */
  readonly durationMs: number | undefined
  /** The audit chain that it belongs to: `<topic>/<partition>`. */
  readonly chain: string
}

/** An event as it arrives. `text` is the message as received: see `record.ts`. */
export interface NewEvent extends EventFields {
  readonly text: string
}

/** The last event of a chain. */
export interface Tail {
  /** From 1, without a gap. */
  readonly seq: number
  /** Hexadecimal. */
  readonly hash: string
}

/** An event in its chain: see `chain.ts`. */
export interface StoredEvent extends NewEvent, Tail {
  readonly previousHash: string
}

export interface EventFilter {
  readonly type?: string | undefined
  readonly user?: string | undefined
  readonly operation?: string | undefined
  /** Only events of this time or later, in ms since the epoch. */
  readonly fromMs?: number | undefined
  /** Only events before this time. */
  readonly untilMs?: number | undefined
}

/** Where an event stands in a list. */
export interface EventPosition {
  readonly timeMs: number
  readonly id: string
}

export interface MinuteCount {
  /** Whole minutes since the epoch. */
  readonly minute: number
  readonly type: string
  readonly count: number
}

/** Whole minutes since the epoch, both included. */
export interface Minutes {
  readonly first: number
  readonly last: number
}

/**
 * Keeps each event once, in chains that grow at their end. Only `prune` removes events.
 *
 * - What a write resolved to is durable, and every later read sees it.
 * - Of two events with one id, or at one place of a chain, the first stays; so any number of processes may append.
 * - Calls reject while the store cannot be reached. Then it is unknown whether a write was stored.
 */
export interface Events {
  /**
   * Adds events in their order. `taken`: an event with the id of one of them, or at its place in its chain, exists. Then
   * some of those before that one may have been added, and none after it.
   */
  insert(events: readonly StoredEvent[]): Promise<'stored' | 'taken'>
  /** Which of the ids exist, in whatever chain. */
  existing(ids: readonly string[]): Promise<ReadonlySet<string>>
  tail(chain: string): Promise<Tail | undefined>
  get(id: string): Promise<StoredEvent | undefined>
  /** The newest events first, by time and then by id; those that come after `before` where it is given. */
  list(
    filter: EventFilter,
    page: { readonly limit: number; readonly before?: EventPosition | undefined },
  ): Promise<StoredEvent[]>
  /** At most `limit` events that come after the given `seq` of their chain, each chain in its order. */
  after(seqs: ReadonlyMap<string, number>, limit: number): Promise<StoredEvent[]>
  /**
   * All events, or all after a place, ordered by chain and `seq`, in pages of at most 500. A page is read when it is asked
   * for, so that it holds what was stored until then.
   */
  inChainOrder(after?: { readonly chain: string; readonly seq: number }): AsyncIterable<readonly StoredEvent[]>
  /** Deletes at most `atMost` of the first events of a chain, none from `beforeSeq` on. Resolves to how many it deleted. */
  prune(chain: string, beforeSeq: number, atMost: number): Promise<number>
  /** How many events of each type happened in each minute, where there are any. */
  countByMinute(minutes: Minutes): Promise<MinuteCount[]>
  /** The sum and the maximum of `durationMs` over the events that have one; both 0 where none has. */
  durations(minutes: Minutes): Promise<{ readonly totalMs: number; readonly longestMs: number }>
}
