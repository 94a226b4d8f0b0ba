import type { Caller } from '@posta/common/service/auth.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { type SQL, sql } from 'drizzle-orm'
import * as v from 'valibot'
import type { Database } from './database/open.ts'
import { usage } from './database/schema.ts'
import type { Statement } from './database/transaction.ts'

export type Role = Caller['role']
type Bounds = Readonly<Record<Role, number>>

/** `5000` for every role, or `user=5000,operator=20000`. */
const PerRole = v.pipe(
  v.string(),
  v.regex(/^(?:\d{1,12}|user=\d{1,12},operator=\d{1,12})$/, 'must be a number, or user=NUMBER,operator=NUMBER'),
  v.transform((text): Bounds => {
    const [user = 0, operator = user] = (text.match(/\d+/g) ?? []).map(Number)
    return { user, operator }
  }),
)

const HOUR_S = 60 * 60
const DAY_S = 24 * HOUR_S
const windowS = {
  'submissions-per-minute': 60,
  'submissions-per-day': DAY_S,
  'submitted-bytes-per-day': DAY_S,
  'refreshes-per-hour': HOUR_S,
} as const

export type Quota = keyof typeof windowS
/** What one user may use in a period, by role. Periods are those of UTC: at the next one all of it is free again. */
export type Quotas = Readonly<Record<Quota, Bounds>>

/** The variables that set the quotas. */
export const quotaEntries = {
  SUBMISSIONS_PER_MINUTE: v.optional(PerRole, '10000'),
  SUBMISSIONS_PER_DAY: v.optional(PerRole, '100000'),
  SUBMITTED_BYTES_PER_DAY: v.optional(PerRole, String(100 * 1024 * 1024)),
  REFRESHES_PER_HOUR: v.optional(PerRole, '200'),
}

export function readQuotas(values: v.InferOutput<v.ObjectSchema<typeof quotaEntries, undefined>>): Quotas {
  return {
    'submissions-per-minute': values.SUBMISSIONS_PER_MINUTE,
    'submissions-per-day': values.SUBMISSIONS_PER_DAY,
    'submitted-bytes-per-day': values.SUBMITTED_BYTES_PER_DAY,
    'refreshes-per-hour': values.REFRESHES_PER_HOUR,
  }
}

export const defaultQuotas = readQuotas(v.parse(v.object(quotaEntries), {}))

/** Who uses something, and when: values, or what stands for them in a statement. */
interface Use<Value> {
  readonly user: Value | string
  readonly role: Value | Role
  /** Ms since the epoch. */
  readonly atMs: Value | number
}

// A bound number is a REAL.
const periodOf = (quota: Quota, atMs: SQL | number) =>
  sql`CAST(${atMs} / ${sql.raw(String(1000 * windowS[quota]))} AS INTEGER)`

/** For a statement: how much of the quota is left. A clock that is behind finds the period of the one that is ahead. */
export function roomOf(quotas: Quotas, quota: Quota, { user, role, atMs }: Use<SQL>): SQL {
  const { user: forUser, operator } = quotas[quota]
  return sql`(
    iif(${role} = 'operator', ${operator}, ${forUser}) - coalesce((
      SELECT used FROM ${usage} WHERE user_id = ${user} AND quota = ${quota} AND period >= ${periodOf(quota, atMs)}), 0))`
}

/**
 * The statement that counts what was used.
 * @param used rows of `user`, `at_ms` and `used`, one for each user
 */
export function countUse(quota: Quota, used: SQL): Statement {
  return sql`
    INSERT INTO ${usage} (user_id, quota, period, used)
    SELECT user, ${quota}, ${periodOf(quota, sql`at_ms`)}, used FROM (${used}) WHERE TRUE
    ON CONFLICT (user_id, quota) DO UPDATE SET
      used = iif(excluded.period > period, 0, used) + excluded.used,
      period = max(period, excluded.period)`
}

/** The problem of the first of these quotas that has no room for as much; undefined if each has. */
export async function exceeded(
  database: Pick<Database, 'get'>,
  quotas: Quotas,
  { user, role, atMs }: Use<never>,
  wanted: readonly (readonly [Quota, number])[],
): Promise<Problem | undefined> {
  for (const [quota, amount] of wanted) {
    const room = roomOf(quotas, quota, { user, role, atMs })
    const { left } = await database.get<{ left: number }>(sql`SELECT ${room} AS left`)
    if (amount > left) return quotaExceeded(quota, quotas[quota][role], Math.max(0, left), atMs)
  }
  return undefined
}

function quotaExceeded(name: Quota, quota: number, remaining: number, atMs: number): Problem {
  const window = windowS[name]
  const resetS = window - Math.floor((atMs / 1000) % window)
  const unit = name === 'submitted-bytes-per-day' ? 'content-bytes' : 'requests'
  return new Problem('quota-exceeded', `Your quota ${name} is ${quota}, and it is used up.`, {
    retryAfterS: resetS,
    rateLimit: { name, unit, quota, windowS: window, remaining, resetS },
  })
}
