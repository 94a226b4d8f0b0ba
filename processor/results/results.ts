import { type OperationType, operationTypes } from '@posta/common/operations/catalog.ts'
import { problemCodes } from '@posta/common/service/problem.ts'
import * as v from 'valibot'

const Members = v.record(v.string(), v.unknown())

const common = {
  /** The operation's id: an operation has one result. */
  id: v.string(),
  user: v.string(),
  type: v.picklist(operationTypes),
  /** As its contract reads it. Absent if it did not fit the contract; then the dead letter has it as it came. */
  input: v.optional(Members),
  /** When gateway accepted the operation, RFC 3339. */
  createdAt: v.string(),
  /** What it counts against a limit, in the limit's units; absent if nothing. */
  counts: v.optional(v.object({ limit: v.string(), period: v.string(), amount: v.number() })),
  /** Lets it be found by `newest`. */
  lookup: v.optional(v.object({ key: v.string(), order: v.string() })),
  /** The redrive whose success replaced the dead-lettered failure. */
  redrive: v.optional(v.string()),
}
/** Decided: its run does the rest. */
const running = {
  ...common,
  status: v.literal('running'),
  /** What `decide` said with "go on", of which version of the performer, and when. */
  version: v.number(),
  decided: v.unknown(),
  decidedAt: v.string(),
}
/** When the work was done, or dead-lettered: ISO 8601 in UTC with milliseconds, which sorts as text. */
const completedAt = v.string()
const succeeded = { ...common, status: v.literal('succeeded'), output: Members, completedAt }
const failed = {
  ...common,
  status: v.literal('failed'),
  error: v.object({ code: v.picklist(problemCodes), message: v.string() }),
  completedAt,
}

/** The outcome of an operation. */
export const Outcome = v.variant('status', [v.object(succeeded), v.object(failed)])
export type Outcome = v.InferOutput<typeof Outcome>

/** What became of an operation so far. */
export const ResultSummary = v.variant('status', [v.object(running), v.object(succeeded), v.object(failed)])
export type ResultSummary = v.InferOutput<typeof ResultSummary>

/** With the facts that gateway sent along, if there were any. */
const facts = { facts: v.optional(Members) }
export const Result = v.variant('status', [
  v.object({ ...running, ...facts }),
  v.object({ ...succeeded, ...facts }),
  v.object({ ...failed, ...facts }),
])
export type Result = v.InferOutput<typeof Result>

/** Whose operations count together: those of a user against a limit in a period. */
export interface Allowance {
  readonly user: string
  readonly limit: string
  readonly period: string
}

export function allowanceKey({ user, limit, period }: Allowance): string {
  return `${limit} ${period} ${user}`
}

/** Where a result stands in the order of pages. */
export type Position = Pick<Outcome, 'completedAt' | 'id'>

/**
 * Keeps the result of every operation. What counts against a limit is part of it: no moment counts an operation twice, or
 * not at all.
 *
 * - When `append`, `replaceDeadLettered` or `settle` resolves, what it wrote is durable and every later read sees it.
 * - A result changes only by `replaceDeadLettered` and `settle`, and goes only by `deleteBefore`.
 * - Calls reject within seconds while the store cannot be reached, and work once it can. A write that rejected may have
 *   been done.
 */
export interface Results {
  /** Those that exist, by id. */
  find(ids: readonly string[]): Promise<ReadonlyMap<string, ResultSummary>>
  /** What counts against each allowance, in the limit's units, in the order of `allowances`. */
  used(allowances: readonly Allowance[]): Promise<readonly number[]>
  /**
   * Stores results of distinct ids, in order, up to the first whose id exists. Resolves to how many it stored. Of several
   * callers that append the same id at once, one stores it.
   */
  append(results: readonly Result[]): Promise<number>
  /** Replaces the dead-lettered failure of the same id. False, and nothing changes, if there is none. */
  replaceDeadLettered(result: Result): Promise<boolean>
  /** Replaces results that are `running` by their outcomes, by id. An outcome changes nothing if there is no such result. */
  settle(outcomes: readonly (Result & Outcome)[]): Promise<void>
  get(id: string): Promise<Result | undefined>
  /** At most `limit` outcomes, newest first, of one user or of all. With `before`: those that are older. */
  page(query: { user?: string; limit: number; before?: Position }): Promise<readonly Outcome[]>
  /** Of the results of a type with this `lookup.key`: the one whose `lookup.order` sorts last, and of those the latest. */
  newest(type: OperationType, key: string): Promise<Result | undefined>
  /**
   * Deletes the oldest outcomes that were completed before `completedAt`, at most `atMost` of them. Resolves to how many it
   * deleted: fewer than `atMost` if there are no more. Several callers may do this at once.
   */
  deleteBefore(completedAt: string, atMost: number): Promise<number>
}
