import type { Topic } from '@posta/common/messages/topics.ts'

/** What is known of a message that a consumer set aside. */
export interface DeadLetterSummary {
  readonly id: string
  /** `open` until a decision has been published. */
  readonly status: DeadLetterStatus
  readonly receivedAtMs: number
  readonly reason: string
  /** The consumer group that set it aside. Undefined: the message could not be read as a dead letter. */
  readonly group?: string | undefined
  /** The original's topic, and its position there. */
  readonly topic: Topic
  readonly partition: number
  readonly offset: number
  readonly timestampMs: number
  readonly redrivable: boolean
  /** What the original says of itself, as far as that can be read. */
  readonly type?: string | undefined
  readonly user?: string | undefined
  readonly operation?: string | undefined
  /** The beginning of the original's value, for people. */
  readonly preview: string
  /** Recorded before anything is published; `status` follows when the broker has the messages. */
  readonly decision?: Decision | undefined
}

export const deadLetterStatuses = ['open', 'redriven', 'discarded'] as const
export type DeadLetterStatus = (typeof deadLetterStatuses)[number]

/** A dead letter with the original's bytes, in base64. */
export interface StoredDeadLetter extends DeadLetterSummary {
  readonly original: {
    readonly key: string | null
    readonly value: string | null
    readonly headers: readonly { readonly name: string; readonly value: string }[]
  }
}

/** What an operator wants done: send the message again, or never send it, and why. */
export type Choice = { readonly to: 'redriven' } | { readonly to: 'discarded'; readonly reason: string }

/** What an operator decided about a dead letter. It is final. */
export type Decision = Choice & {
  /** The id of the event that reports the decision. A redriven message carries it as `ce_redrive`. */
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
  /** Received at this time or later, in ms since the epoch. */
  readonly fromMs?: number | undefined
  /** Received before this time. */
  readonly untilMs?: number | undefined
}

/** A position in a list of dead letters, which are ordered by when they were received, then by id. */
export interface DeadLetterPosition {
  readonly receivedAtMs: number
  readonly id: string
}

/** Keeps every dead letter once, and at most one decision about each. */
export interface DeadLetters {
  /** Durable when it resolves. A dead letter that exists stays as it is. */
  add(deadLetters: readonly StoredDeadLetter[]): Promise<void>
  get(id: string): Promise<StoredDeadLetter | undefined>
  /** Those that exist, by id. */
  find(ids: readonly string[]): Promise<ReadonlyMap<string, StoredDeadLetter>>
  /** The newest first, after the position `before`. */
  list(
    filter: DeadLetterFilter,
    page: { readonly limit: number; readonly before?: DeadLetterPosition | undefined },
  ): Promise<DeadLetterSummary[]>
  /** The oldest first, after the position `after`. */
  oldest(
    filter: DeadLetterFilter,
    page: { readonly limit: number; readonly after?: DeadLetterPosition | undefined },
  ): Promise<DeadLetterSummary[]>
  /** How many there are after the position. It counts no further than `atMost`. */
  count(
    filter: DeadLetterFilter,
    page: { readonly atMost: number; readonly after?: DeadLetterPosition | undefined },
  ): Promise<number>
  /**
   * Records decisions about dead letters that exist. If several processes decide about the same one, however close in time,
   * the first decision stays. Durable when it resolves, with the ids about which this call decided.
   */
  decide(decisions: readonly DecisionOn[]): Promise<ReadonlySet<string>>
  /** These decisions, which are the recorded ones, have been published: sets the status from `open` to what was decided. */
  confirm(decisions: readonly DecisionOn[]): Promise<void>
  /** Those whose decision is not confirmed, ordered by id, after the given id. */
  unconfirmed(page: { readonly limit: number; readonly afterId?: string | undefined }): Promise<StoredDeadLetter[]>
  /** Deletes up to `atMost` that were decided before the time and confirmed. Resolves with how many it deleted. */
  prune(beforeMs: number, atMost: number): Promise<number>
}
