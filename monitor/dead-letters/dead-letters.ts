import type { Topic } from '@posta/common/messages/topics.ts'

/** A message that was set aside: what is known of it. */
export interface DeadLetterSummary {
  readonly id: string
  /** `open` until what was decided has been published. */
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
  /** Recorded before anything is published; `status` follows when the broker holds it. */
  readonly decision: Decision | undefined
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

/** What an operator decided about a dead letter, once and for all. */
export type Decision = Decided & ({ readonly to: 'redriven' } | { readonly to: 'discarded'; readonly reason: string })

interface Decided {
  /** The id of the event that tells of it; of a redrive also `ce_redrive` on the message. */
  readonly event: string
  /** The operator's user id. */
  readonly by: string
  /** RFC 3339. */
  readonly at: string
}

export interface DecisionOn {
  readonly id: string
  readonly decision: Decision
}

export interface DeadLetterFilter {
  readonly topic?: Topic | undefined
  readonly group?: string | undefined
  readonly status?: DeadLetterStatus | undefined
  readonly type?: string | undefined
  readonly user?: string | undefined
  readonly operation?: string | undefined
  readonly redrivable?: boolean | undefined
  /** When it was received: the first that counts, in ms since the epoch. */
  readonly fromMs?: number | undefined
  /** The first that no longer counts. */
  readonly untilMs?: number | undefined
}

/** A place in a list of dead letters, which are in the order in which they were received. */
export interface DeadLetterPosition {
  readonly receivedAtMs: number
  readonly id: string
}

/** Keeps every dead letter once, and at most one decision about each. */
export interface DeadLetters {
  /** Durable when it resolves. One that is there already stays as it is. */
  add(deadLetters: readonly StoredDeadLetter[]): Promise<void>
  get(id: string): Promise<StoredDeadLetter | undefined>
  /** Those that exist, by id. */
  find(ids: readonly string[]): Promise<ReadonlyMap<string, StoredDeadLetter>>
  /** The newest first, by when they were received and then id. */
  list(
    filter: DeadLetterFilter,
    page: { readonly limit: number; readonly before?: DeadLetterPosition | undefined },
  ): Promise<DeadLetterSummary[]>
  /** The same, the oldest first. */
  oldest(
    filter: DeadLetterFilter,
    page: { readonly limit: number; readonly after?: DeadLetterPosition | undefined },
  ): Promise<DeadLetterSummary[]>
  /** How many there are, after the given place; counts no further than `atMost`. */
  count(
    filter: DeadLetterFilter,
    page: { readonly atMost: number; readonly after?: DeadLetterPosition | undefined },
  ): Promise<number>
  /**
   * Records decisions about dead letters that exist. Of several about one, in whatever process and however close, the
   * first stays. Resolves, when they are durable, with the ids of those that this call decided.
   */
  decide(decisions: readonly DecisionOn[]): Promise<ReadonlySet<string>>
  /** What was decided has been published: from open to that. The decisions are those that stand. */
  confirm(decisions: readonly DecisionOn[]): Promise<void>
  /** Those with a decision that is not confirmed, by id, after the given one. */
  unconfirmed(page: { readonly limit: number; readonly afterId?: string | undefined }): Promise<StoredDeadLetter[]>
  /** Deletes, with the decisions, those that were decided on before the time and confirmed; at most so many. How many. */
  prune(beforeMs: number, atMost: number): Promise<number>
}
