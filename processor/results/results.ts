import { operationTypes } from '@posta/common/operations/catalog.ts'
import { RateTable } from '@posta/common/operations/rates.ts'
import { problemCodes } from '@posta/common/service/problem.ts'
import * as v from 'valibot'

const Members = v.record(v.string(), v.unknown())

const common = {
  /** The operation's: an operation has one result. */
  id: v.string(),
  user: v.string(),
  type: v.picklist(operationTypes),
  /** As its contract reads it. Absent where the message's did not fit; the dead letter has it as it came. */
  input: v.optional(Members),
  /** When gateway accepted the operation, RFC 3339. */
  createdAt: v.string(),
  /** When it was performed, or given up, ISO 8601 in UTC with milliseconds: sorts as text. */
  completedAt: v.string(),
  /** The UTC date of `createdAt`: whose limit the operation counts against. */
  day: v.string(),
  /** In 1e-8 USD; 0 for what failed. */
  countedUsdE8: v.number(),
  /** The redrive that turned the failure by dead letter into this. */
  redrive: v.optional(v.string()),
}
const succeeded = { ...common, status: v.literal('succeeded'), output: Members }
const failed = {
  ...common,
  status: v.literal('failed'),
  error: v.object({ code: v.picklist(problemCodes), message: v.string() }),
}

/** What came of an operation. */
export const ResultSummary = v.variant('status', [v.object(succeeded), v.object(failed)])
export type ResultSummary = v.InferOutput<typeof ResultSummary>

/** With the rates that gateway sent along: the evidence, and for `store-rates` the whole table that it keeps. */
const evidence = { rates: RateTable }
export const Result = v.variant('status', [
  v.object({ ...succeeded, ...evidence }),
  v.object({ ...failed, ...evidence }),
])
export type Result = v.InferOutput<typeof Result>

interface StoredRates {
  readonly table: RateTable
  /** When it was stored. */
  readonly completedAt: string
}

export interface UserDay {
  readonly user: string
  readonly day: string
}

/** A place in the order of a page. */
export type Position = Pick<Result, 'completedAt' | 'id'>

/**
 * Keeps the result of every operation: the one effect that an operation has.
 *
 * - What a call of `append` or `replaceDeadLettered` answered is durable, and every later read sees it.
 * - A result stays as it is, except by `replaceDeadLettered` and `deleteBefore`.
 * - Opening needs no server: a call rejects, within seconds, while the store cannot be reached, and works once it can.
 *   Then it is unknown whether a write went in.
 */
export interface Results {
  /** Those that exist, by id. */
  find(ids: readonly string[]): Promise<ReadonlyMap<string, ResultSummary>>
  /** What counts against the limit of each user and day, in the order asked, in 1e-8 USD. */
  countedUsdE8(userDays: readonly UserDay[]): Promise<readonly number[]>
  /**
   * Stores results of distinct ids in their order up to the first whose id exists; that one and all after it stay out.
   * Resolves to how many went in. Of two callers that append the same id at the same time, one stores it.
   */
  append(results: readonly Result[]): Promise<number>
  /** Puts `result` in the place of a failure by dead letter. False, and nothing changes, where there is none of this id. */
  replaceDeadLettered(result: Result): Promise<boolean>
  get(id: string): Promise<Result | undefined>
  /** The newest results, one user's or everyone's, after the place `before` where one is given. */
  page(query: { user?: string; limit: number; before?: Position }): Promise<readonly ResultSummary[]>
  /** The table of `base` with the latest date, and of those the one stored last. */
  newestRates(base: string): Promise<StoredRates | undefined>
  /**
   * Deletes at most `atMost` of the oldest results from before `completedAt`. Resolves to how many it did, fewer where
   * there are no more. Several may do so at the same time.
   */
  deleteBefore(completedAt: string, atMost: number): Promise<number>
  /** Rejects with the reason where the store does not answer. */
  ping(): Promise<void>
  close(): Promise<void>
}
