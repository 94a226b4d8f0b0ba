import * as v from 'valibot'
import type { Ledger } from '../../tools/provider/ledger.ts'
import type { Entry } from './history.ts'

const Members = v.record(v.string(), v.unknown())
const Text = v.nullish(v.string())

export const Progress = v.object({ step: v.string(), status: v.string(), at: v.string() })
export type Progress = v.InferOutput<typeof Progress>

/** A row of gateway's database. */
export const OperationRow = v.object({
  id: v.string(),
  user: v.string(),
  type: v.string(),
  status: v.picklist(['pending', 'succeeded', 'failed']),
  input: v.record(v.string(), v.string()),
  output: v.nullish(Members),
  errorCode: Text,
  /** By the number of the record that it tells of. */
  progress: v.record(v.string(), Progress),
  key: Text,
  createdAtMs: v.number(),
})
export type OperationRow = v.InferOutput<typeof OperationRow>

export const RateTable = v.object({
  base: v.string(),
  date: v.string(),
  source: v.string(),
  rates: v.array(v.object({ code: v.string(), rate: v.string() })),
})
export type RateTable = v.InferOutput<typeof RateTable>

/** What processor stored. */
export const ResultRow = v.object({
  id: v.string(),
  user: v.string(),
  type: v.string(),
  status: v.picklist(['running', 'succeeded', 'failed']),
  input: v.nullish(v.record(v.string(), v.string())),
  output: v.nullish(Members),
  error: v.nullish(v.object({ code: v.string() })),
  createdAt: v.string(),
  counts: v.nullish(v.object({ limit: v.string(), period: v.string(), amount: v.number() })),
  redrive: Text,
  /** Absent if it was dead-lettered. */
  facts: v.nullish(RateTable),
})
export type ResultRow = v.InferOutput<typeof ResultRow>

/** What a run recorded. Which members there are depends on the kind. */
export const RunRecord = v.object({
  n: v.number(),
  kind: v.string(),
  atMs: v.number(),
  step: v.optional(v.string()),
  final: v.optional(v.boolean()),
  result: v.optional(v.unknown()),
  failure: v.optional(v.object({ code: v.string() })),
  outcome: v.optional(v.object({ output: v.optional(Members), failure: v.optional(v.object({ code: v.string() })) })),
})
export type RunRecord = v.InferOutput<typeof RunRecord>

/** A run as processor stored it, with its records by number. */
export const RunRow = v.object({
  id: v.string(),
  user: v.string(),
  state: v.string(),
  redrive: Text,
  records: v.array(RunRecord),
})
export type RunRow = v.InferOutput<typeof RunRow>

/** What monitor stored. */
export const EventRow = v.object({
  id: v.string(),
  type: v.string(),
  operation: Text,
  chain: v.string(),
  seq: v.number(),
  previousHash: v.string(),
  hash: v.string(),
  text: v.string(),
})
export type EventRow = v.InferOutput<typeof EventRow>

export const DeadLetterRow = v.object({
  id: v.string(),
  status: v.string(),
  topic: v.string(),
  operation: Text,
  /** The first bytes of the message's value, as text. */
  preview: v.string(),
})
export type DeadLetterRow = v.InferOutput<typeof DeadLetterRow>

/** A message of a topic. What it lacks is undefined: a foreign client may have written it. */
export interface Message {
  readonly topic: string
  /** How often the topic had been recreated before. */
  readonly generation: number
  readonly partition: number
  readonly offset: number
  readonly key: string
  readonly type: string | undefined
  readonly id: string | undefined
  readonly operation: string | undefined
  readonly redrive: string | undefined
  readonly value: string
}

/** A message that no service can read, published by another program. */
export interface Poison {
  /** A text that no other message has in it. */
  readonly mark: string
  readonly topic: string
  readonly atMs: number
  /** Whether the broker acknowledged it. */
  readonly acknowledged: boolean
}

/** What a process of the run took, over all its restarts. */
export interface ProcessUse {
  readonly name: string
  readonly maxRssBytes: number
  /** How it ended when it was asked to, at the end: 0 where it drained. */
  readonly endedBy: number | string | null
}

/** Everything that the checker looks at. */
export interface Snapshot {
  readonly parts: 'embedded' | 'real'
  readonly limitUsdE8: number
  /** A payout that is worth more needs an operator's approval. */
  readonly approvalAboveUsdE8: number
  /** By the clients' clock. */
  readonly faultsEndedAtMs: number
  readonly history: readonly Entry[]
  readonly operations: readonly OperationRow[]
  /** How many rows gateway's outbox still has. */
  readonly outbox: number
  readonly results: readonly ResultRow[]
  readonly runs: readonly RunRow[]
  /** What the payout provider did. */
  readonly ledger: Ledger
  readonly events: readonly EventRow[]
  readonly deadLetters: readonly DeadLetterRow[]
  /** Of every topic, in the order of generation, partition and offset. */
  readonly messages: readonly Message[]
  /** When topics were deleted and created again. What no reader had read of them is lost. */
  readonly recreated: readonly { readonly topic: string; readonly atMs: number }[]
  readonly poison: readonly Poison[]
  /** The operations whose requests a processor read wrongly. */
  readonly misread: readonly string[]
  /** The rates of each source, by base and code. */
  readonly rates: { readonly live: RatesByBase; readonly bundled: RatesByBase }
  /** What the services show at the end. */
  readonly shown: {
    /** Every result that processor lists, by the operation's id. */
    readonly results: ReadonlyMap<string, { readonly status: string }>
    /** For some operations: the types of the events on monitor's timeline. */
    readonly timelines: ReadonlyMap<string, readonly string[]>
    /** What `GET /audit/verify` of each monitor answered. */
    readonly audits: readonly { readonly ok: boolean; readonly events: number }[]
  }
  readonly processes: readonly ProcessUse[]
  readonly files: readonly { readonly name: string; readonly bytes: number }[]
}

export type RatesByBase = Readonly<Record<string, Readonly<Record<string, string>>>>
