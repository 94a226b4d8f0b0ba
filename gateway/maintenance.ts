import { OPERATION_RETENTION_MS } from '@posta/common/operations/retention.ts'
import type { Component } from '@posta/common/service/component.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { deleteAll, repeat } from '@posta/common/service/repeat.ts'
import { type SQL, sql } from 'drizzle-orm'
import type { Keys } from './accounts/keys.ts'
import { expiredRevocations } from './accounts/revocations.ts'
import type { Writer } from './database/commit.ts'
import type { Lease } from './database/lease.ts'
import { operations, refreshTokens } from './database/schema.ts'

const EVERY_MS = 60 * 1000

/**
 * What only time brings about, done every minute by the lease holder: rotates keys that are due, deletes refresh tokens that
 * have expired and terminal operations that were kept for long enough.
 */
export function maintenance(options: {
  lease: Pick<Lease, 'current'>
  writer: Writer
  keys: Pick<Keys, 'rotateIfDue'>
  deps: Pick<Deps, 'now'>
  log: Pick<Logger, 'info' | 'warn'>
  everyMs?: number
}): Component {
  const { lease, writer, keys, deps, log, everyMs = EVERY_MS } = options

  async function remove(what: string, statement: (atOnce: number) => SQL, signal: AbortSignal): Promise<void> {
    const deleteSome = async (atOnce: number) => {
      const [result] = await writer.write([statement(atOnce)])
      return result?.rowsAffected ?? 0
    }
    const deleted = await deleteAll(deleteSome, signal)
    if (deleted > 0) log.info({ deleted }, `${what} were deleted`)
  }

  const task = (name: string, run: (signal: AbortSignal) => Promise<void>) => ({
    name,
    run: async (signal: AbortSignal) => {
      if (lease.current()) await run(signal)
    },
  })
  return repeat({
    name: 'maintenance',
    everyMs,
    tasks: [
      task('rotate keys', () => keys.rotateIfDue()),
      task('delete expired refresh tokens', (signal) =>
        remove('expired refresh tokens', expiredTokens(deps.now()), signal),
      ),
      task('delete old revocations', (signal) => remove('old revocations', expiredRevocations(deps.now()), signal)),
      task('delete old operations', (signal) =>
        remove('old operations', operationsBefore(deps.now() - OPERATION_RETENTION_MS), signal),
      ),
    ],
    log,
  })
}

const expiredTokens = (nowMs: number) => (atOnce: number) =>
  sql`
  DELETE FROM ${refreshTokens} WHERE hash IN (
    SELECT hash FROM ${refreshTokens} WHERE expires_at <= ${nowMs} LIMIT ${atOnce})`

/** Ids sort by time, so old operations are a range of the primary key: they need no index of their own. */
const operationsBefore = (timeMs: number) => (atOnce: number) =>
  sql`
  DELETE FROM ${operations} WHERE id IN (
    SELECT id FROM ${operations}
    WHERE id < ${firstIdOf(timeMs)} AND created_at < ${timeMs} AND status <> 'pending' ORDER BY id LIMIT ${atOnce})`

/** Sorts before every UUID of version 7 that was made at `timeMs` or later, and after those made earlier. */
function firstIdOf(timeMs: number): string {
  const hex = Math.max(0, timeMs).toString(16).padStart(12, '0')
  return `${hex.slice(0, 8)}-${hex.slice(8)}`
}
