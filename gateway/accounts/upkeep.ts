import { setTimeout as sleep } from 'node:timers/promises'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { sql } from 'drizzle-orm'
import type { Writer } from '../database/commit.ts'
import type { Lease } from '../database/lease.ts'
import { refreshTokens } from '../database/schema.ts'
import type { Keys } from './keys.ts'

const EVERY_MS = 60 * 1000
const MAX_DELETED_AT_ONCE = 1000

/** What time alone brings about, done every minute by whoever holds the lease: keys rotate, expired refresh tokens go. */
export function keepUp(parts: {
  lease: Pick<Lease, 'current'>
  writer: Writer
  keys: Pick<Keys, 'rotateIfDue'>
  deps: Pick<Deps, 'now'>
  log: Pick<Logger, 'warn'>
  everyMs?: number
}): { close(): Promise<void> } {
  const { lease, writer, keys, deps, log, everyMs = EVERY_MS } = parts
  const closing = new AbortController()

  async function deleteExpired(): Promise<void> {
    const expired = sql`SELECT hash FROM ${refreshTokens} WHERE expires_at <= ${deps.now()} LIMIT ${MAX_DELETED_AT_ONCE}`
    let deleted: number | undefined
    do {
      const [result] = await writer.write([sql`DELETE FROM ${refreshTokens} WHERE hash IN (${expired})`])
      deleted = result?.rowsAffected
    } while (deleted === MAX_DELETED_AT_ONCE && !closing.signal.aborted)
  }

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        if (lease.current()) {
          await keys.rotateIfDue()
          await deleteExpired()
        }
      } catch (error) {
        log.warn({ err: error }, 'keys or sessions could not be kept up; trying again')
      }
      await sleep(everyMs, undefined, { signal: closing.signal }).catch(() => {})
    }
  }

  const running = run()
  return {
    async close() {
      closing.abort()
      await running
    },
  }
}
