import { operationTypes } from '@posta/common/operations/catalog.ts'
import { RateTable } from '@posta/common/operations/rates.ts'
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
  /** When it was performed or dead-lettered, ISO 8601 in UTC with milliseconds: sorts as text. */
  completedAt: v.string(),
  /** The UTC date of `createdAt`, against whose limit the operation counts. */
  day: v.string(),
  /** In 1e-8 USD; 0 if it failed. */
  countedUsdE8: v.number(),
  /** The redrive whose success replaced the dead-lettered failure. */
  redrive: v.optional(v.string()),
}
const succeeded = { ...common, status: v.literal('succeeded'), output: Members }
const failed = {
  ...common,
  status: v.literal('failed'),
  error: v.object({ code: v.picklist(problemCodes), message: v.string() }),
}

/** The outcome of an operation. */
export const ResultSummary = v.variant('status', [v.object(succeeded), v.object(failed)])
export type ResultSummary = v.InferOutput<typeof ResultSummary>

/** With the rates that gateway sent along. Those of `store-rates` are the table that it stores. */
export const Result = v.variant('status', [
  v.object({ ...succeeded, rates: RateTable }),
  v.object({ ...failed, rates: RateTable }),
])
export type Result = v.InferOutput<typeof Result>

interface StoredRates {
  readonly table: RateTable
  /** When it was stored. */
  readonly completedAt: string
}

/** A user and a UTC date. */
export type UserDay = Pick<Result, 'user' | 'day'>

export function userDayKey({ user, day }: UserDay): string {
  return `${day} ${user}`
}

/** Where a result stands in the order of pages. */
export type Position = Pick<Result, 'completedAt' | 'id'>

/**
 * Keeps the result of every operation.
 *
 * - When `append` or `replaceDeadLettered` resolves, what it wrote is durable and every later read sees it.
 * - A result changes only by `replaceDeadLettered` and goes only by `deleteBefore`.
 * - Opening never connects. Calls reject within seconds while the store cannot be reached, and work once it can. A write
 *   that rejected may have been done.
 */
export interface Results {
  /** Those that exist, by id. */
  find(ids: readonly string[]): Promise<ReadonlyMap<string, ResultSummary>>
  /** What counts against each limit, in 1e-8 USD, in the order of `userDays`. */
  countedUsdE8(userDays: readonly UserDay[]): Promise<readonly number[]>
  /**
   * Stores results of distinct ids, in order, up to the first whose id exists. Resolves to how many it stored. Of several
   * callers that append the same id at once, one stores it.
   */
  append(results: readonly Result[]): Promise<number>
  /** Replaces the dead-lettered failure of the same id. False, and nothing changes, if there is none. */
  replaceDeadLettered(result: Result): Promise<boolean>
  get(id: string): Promise<Result | undefined>
  /** At most `limit` results, newest first, of one user or of all. With `before`: those that are older. */
  page(query: { user?: string; limit: number; before?: Position }): Promise<readonly ResultSummary[]>
  /** Of the stored tables of `base` with the latest date, the one stored last. */
  newestRates(base: string): Promise<StoredRates | undefined>
  /**
   * Deletes the oldest results that were completed before `completedAt`, at most `atMost` of them. Resolves to how many it
   * deleted: fewer than `atMost` if there are no more. Several callers may do this at once.
   */
  deleteBefore(completedAt: string, atMost: number): Promise<number>
  /** Rejects with the reason if the store does not answer. */
  ping(): Promise<void>
  close(): Promise<void>
}
