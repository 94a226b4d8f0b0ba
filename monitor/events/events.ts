import type { Topic } from '@posta/common/messages/topics.ts'

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
  countByMinute(minutes: Minutes): Promise<MinuteCount[]>
  /** Over those that have a `durationMs`; `longestMs` is 0 where there are none. */
  durations(minutes: Minutes): Promise<{ readonly totalMs: number; readonly longestMs: number }>
}

/** A message that was set aside: what is known of it. */
export interface DeadLetterSummary {
  readonly id: string
  readonly status: DeadLetterStatus
  readonly receivedAtMs: number
  readonly reason: string
  /** Who set it aside. Undefined: what lay among the dead letters could not be read as one. */
  readonly group: string | undefined
  /** Where the original was. */
  readonly topic: Topic
  readonly partition: number
  readonly offset: number
  readonly timestampMs: number
  readonly redrivable: boolean
  /** What the original says of itself, as far as that can be read. */
  readonly type: string | undefined
  readonly user: string | undefined
  readonly operation: string | undefined
  /** The beginning of its value, for people. */
  readonly preview: string
  /** Written before anything is published; `status` changes when the broker holds it. */
  readonly redrive: Redrive | undefined
}

export const deadLetterStatuses = ['open', 'redriven', 'discarded'] as const
export type DeadLetterStatus = (typeof deadLetterStatuses)[number]

/** With the original's bytes, in base64. */
export interface StoredDeadLetter extends DeadLetterSummary {
  readonly original: {
    readonly key: string | null
    readonly value: string | null
    readonly headers: readonly { readonly name: string; readonly value: string }[]
  }
}

export interface Redrive {
  /** The id of the redrive's event, and of `ce_redrive` on the message. */
  readonly event: string
  /** The operator's user id. */
  readonly by: string
  /** RFC 3339. */
  readonly at: string
}

export interface DeadLetterFilter {
  readonly topic?: Topic | undefined
  readonly group?: string | undefined
  readonly status?: DeadLetterStatus | undefined
}

/** Where a list of dead letters goes on: after this one. */
export interface DeadLetterPosition {
  readonly receivedAtMs: number
  readonly id: string
}

/** Keeps every dead letter once. */
export interface DeadLetters {
  /** Durable when it resolves. One that is there already stays as it is. */
  add(deadLetters: readonly StoredDeadLetter[]): Promise<void>
  get(id: string): Promise<StoredDeadLetter | undefined>
  /** The newest first, by when they were received and then id. */
  list(
    filter: DeadLetterFilter,
    page: { readonly limit: number; readonly before?: DeadLetterPosition },
  ): Promise<DeadLetterSummary[]>
  /** Records the redrive unless there is one. Resolves with the dead letter as it is then. */
  recordRedrive(id: string, redrive: Redrive): Promise<StoredDeadLetter | undefined>
  /** The redrive has been published: from open to redriven. Resolves with the dead letter as it is then. */
  confirmRedrive(id: string): Promise<StoredDeadLetter | undefined>
}

/** Opening needs no server: what is down is met, as a rejection, by whoever asks, and again and again until it is up. */
export interface Store {
  readonly events: Events
  readonly deadLetters: DeadLetters
  /** Resolves if the store answers; rejects with the reason within 3 s or so if not. */
  ping(): Promise<void>
  close(): Promise<void>
}
