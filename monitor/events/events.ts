/** What an event is looked up and counted by. All of it follows from the event's `text`; `verify` compares. */
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
  /** `<topic>/<partition>`: the audit chain that it belongs to. */
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
  /** The first that counts, in ms since the epoch. */
  readonly fromMs?: number | undefined
  /** The first that no longer counts. */
  readonly untilMs?: number | undefined
}

/** Where a list of events goes on: after this one. */
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

/** Minutes since the epoch, the last included. */
export interface Minutes {
  readonly first: number
  readonly last: number
}

/** Keeps every event once, in chains that only grow. */
export interface Events {
  /**
   * Adds the events in their order; when it resolves with `stored` all are durable. `taken`: the id of one, or its place
   * in its chain, exists already; then some of those before it may have been added, and none after it.
   */
  insert(events: readonly StoredEvent[]): Promise<'stored' | 'taken'>
  /** Which of the ids exist, in whatever chain. */
  existing(ids: readonly string[]): Promise<ReadonlySet<string>>
  tail(chain: string): Promise<Tail | undefined>
  get(id: string): Promise<StoredEvent | undefined>
  /** The newest first, by time and then id. */
  list(filter: EventFilter, page: { readonly limit: number; readonly before?: EventPosition }): Promise<StoredEvent[]>
  /** Of each chain those beyond the given `seq`, in the chain's order; at most `limit` of all. */
  after(seqs: ReadonlyMap<string, number>, limit: number): Promise<StoredEvent[]>
  /** Everything, in the order of (chain, seq), in pages, beginning after the given place. Sees what is there when it gets there. */
  inChainOrder(after?: { readonly chain: string; readonly seq: number }): AsyncIterable<readonly StoredEvent[]>
  /** Deletes the first events of a chain, before the place `beforeSeq`, at most so many. Resolves with how many. */
  prune(chain: string, beforeSeq: number, atMost: number): Promise<number>
  countByMinute(minutes: Minutes): Promise<MinuteCount[]>
  /** Over those that have a `durationMs`; `longestMs` is 0 where there are none. */
  durations(minutes: Minutes): Promise<{ readonly totalMs: number; readonly longestMs: number }>
}
