import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { type SQL, sql } from 'drizzle-orm'
import type { Writer } from '../database/commit.ts'
import type { Held } from '../database/lease.ts'
import { isPending, operations, outbox } from '../database/schema.ts'

/** How long an operation may stay pending before its request is sent again. The time doubles with each resend. */
export const RESEND_AFTER_MS = 2 * 60 * 1000
/** After these the time is 68 hours, and grows no further. */
const MAX_DOUBLINGS = 11

/** When a request is sent next that was sent again `times` times: counted from `nowMs`, twice as long after each. */
export const nextResend = (nowMs: number, times: SQL) =>
  sql`${nowMs} + ${RESEND_AFTER_MS} * (1 << min(${times}, ${MAX_DOUBLINGS}))`

const EVERY_MS = 5000
const MAX_AT_ONCE = 100

/**
 * Makes the function that puts the requests of operations that have been pending for too long into the outbox once more, in
 * the order of acceptance. It does nothing if it ran less than 5 s ago.
 */
export function createResend(options: {
  writer: Writer
  log: Logger
  deps: Pick<Deps, 'now' | 'monotonicMs'>
}): (held: Held) => Promise<void> {
  const { writer, log, deps } = options
  let nextRunMs = deps.monotonicMs()

  return async (held) => {
    if (deps.monotonicMs() < nextRunMs) return
    nextRunMs = deps.monotonicMs() + EVERY_MS
    const now = deps.now()
    const due = sql`
      SELECT id FROM ${operations} WHERE ${isPending} AND resend_at <= ${now} AND ${held.stillHeld}
      ORDER BY resend_at, id LIMIT ${MAX_AT_ONCE}`
    const [inserted] = await writer.write([
      // Ids sort by the time of acceptance.
      sql`INSERT INTO ${outbox} (operation_id) SELECT id FROM (${due}) ORDER BY id`,
      sql`
        UPDATE ${operations} SET
          resends = resends + 1, resend_at = ${nextResend(now, sql`resends + 1`)}
        WHERE id IN (${due})`,
    ])
    const count = inserted?.rowsAffected ?? 0
    if (count > 0) log.info({ operations: count }, 'requests of operations that are still pending are sent again')
  }
}
