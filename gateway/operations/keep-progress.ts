// Keeps the progress of operations in steps, which comes with the results: see receive-results.ts.
import type { MessageData } from '@posta/common/messages/events.ts'
import { sql } from 'drizzle-orm'
import type { Bulk } from '../database/bulk.ts'
import type { ProgressEntry } from '../database/schema.ts'
import { nextResend, RESEND_AFTER_MS } from './resend.ts'

export type Progress = MessageData<'posta.operation.progressed'>

/** What the progress of one operation in one transaction writes into its row. */
interface Change {
  readonly id: string
  readonly userId: string
  readonly entries: Record<string, ProgressEntry>
  /** Not to be sent again before this time: `RESEND_AFTER_MS` after the last of the waits ends; 0 without one. */
  waitsUntil: number
  /** Whether something else was recorded than a wait with an end. The next resend then counts from now. */
  moves: boolean
}

/**
 * Adds entries to the progress of their operations, by number: in any order and any number of times, with the same effect.
 * Also sets `waiting`, and puts off the next resend of a request that is pending. The outcome `unknown`: there is no such
 * operation of this user.
 */
export const keepProgress = (now: () => number): Bulk<Progress, 'kept' | 'unknown'> => ({
  statements(messages) {
    const json = JSON.stringify([...onePerOperation(messages).values()])
    // An UPDATE reads a row once, so the progress after it is computed first.
    return [
      sql`
        UPDATE operations SET
          progress = after.progress,
          waiting = coalesce((SELECT value->>'forSignal' FROM json_each(after.progress) ORDER BY CAST(key AS INTEGER) DESC LIMIT 1), 0),
          resend_at = iif(operations.status = 'pending', max(
            coalesce(operations.resend_at, 0), after.waits_until, iif(after.moves, ${nextResend(now(), sql`operations.resends`)}, 0)
          ), operations.resend_at)
        FROM (
          SELECT known.id, json_patch(coalesce(known.progress, '{}'), change.value->'entries') AS progress,
            change.value->>'waitsUntil' AS waits_until, change.value->>'moves' AS moves
          FROM json_each(${json}) AS change
          JOIN operations AS known ON known.id = change.value->>'id' AND known.user_id = change.value->>'userId'
        ) AS after
        WHERE operations.id = after.id
        RETURNING id, user_id`,
    ]
  },
  outcomes([updated], messages) {
    const known = new Set(updated?.rows.map((row) => keyOf(String(row.id), String(row.user_id))))
    return messages.map(({ operation, user }) => (known.has(keyOf(operation, user)) ? 'kept' : 'unknown'))
  },
})

function onePerOperation(messages: readonly Progress[]): ReadonlyMap<string, Change> {
  const changes = new Map<string, Change>()
  for (const { operation, user, n, step, status, at, until, forSignal } of messages) {
    const key = keyOf(operation, user)
    const change = changes.get(key) ?? { id: operation, userId: user, entries: {}, waitsUntil: 0, moves: false }
    changes.set(key, change)
    const waits = status === 'waiting'
    change.entries[n] = { step, status, at, ...(waits && forSignal && { forSignal }) }
    const untilMs = waits && until !== undefined ? Date.parse(until) : Number.NaN
    if (Number.isNaN(untilMs)) change.moves = true
    else change.waitsUntil = Math.max(change.waitsUntil, untilMs + RESEND_AFTER_MS)
  }
  return changes
}

/** A message that names another user is of no operation, and must not stand for the one with its id. */
export const keyOf = (id: string, userId: string) => `${id} ${userId}`
