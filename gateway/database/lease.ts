import { pause } from '@posta/common/service/backoff.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { and, eq, exists, type SQL, sql } from 'drizzle-orm'
import type { Writer } from './commit.ts'
import type { Database } from './open.ts'
import { leases } from './schema.ts'
import type { Statement } from './transaction.ts'

export interface Held {
  /** Counts the times that the lease was taken. */
  readonly epoch: number
  /** For the WHERE of every write that only the holder may do: true while the lease is held in this epoch. */
  readonly stillHeld: SQL
}

export interface Lease {
  /** Undefined while this process does not hold the lease, or cannot be sure that it does. */
  current(): Held | undefined
  /** Gives the lease up, so that another process can take it at once. */
  close(): Promise<void>
}

/**
 * Tries to take the lease `name`, now and every second until it is closed. One process holds it at a time. No wall clock
 * is trusted: the holder raises `beat` every second. Another process takes the lease, with the next epoch, once it has
 * seen the same beat for 4 s of its own monotonic clock. A lease that was given up, or never held, is taken at once.
 */
export function holdLease(options: {
  name: string
  database: Database
  writer: Writer
  deps: Pick<Deps, 'monotonicMs' | 'newId'>
  log: Pick<Logger, 'info' | 'warn'>
  beatMs?: number
  takeoverMs?: number
}): Lease {
  const { name, database, writer, deps, log, beatMs = 1000, takeoverMs = 4000 } = options
  const owner = deps.newId()
  const closing = new AbortController()
  let held: Held | undefined
  /** When the last renewal began: nobody can have seen its beat before that. */
  let renewedAtMs = 0
  /** The last beat of another holder, and when this process first saw it. */
  let seen: { readonly epoch: number; readonly beat: number; readonly atMs: number } | undefined

  const current = () => (held && deps.monotonicMs() - renewedAtMs < takeoverMs ? held : undefined)
  const isOurs = (epoch: number) => and(eq(leases.name, name), eq(leases.owner, owner), eq(leases.epoch, epoch))

  /** Runs `statement`, which takes or renews the lease for `epoch`. False where another process came first. */
  async function claim(epoch: number, statement: Statement): Promise<boolean> {
    const startedAtMs = deps.monotonicMs()
    const [result] = await writer.write([statement])
    if (result?.rowsAffected !== 1) return false
    renewedAtMs = startedAtMs
    if (held?.epoch !== epoch) {
      held = { epoch, stillHeld: exists(database.select({ held: sql`1` }).from(leases).where(isOurs(epoch))) }
      log.info({ lease: name, epoch }, 'lease taken')
    }
    return true
  }

  async function renew(epoch: number): Promise<void> {
    const next = { beat: sql`${leases.beat} + 1` }
    const isRenewed = await claim(epoch, database.update(leases).set(next).where(isOurs(epoch)))
    if (!isRenewed) lose('lease lost')
  }

  async function standBy(): Promise<void> {
    const [row] = await database.select().from(leases).where(eq(leases.name, name))
    if (!row) {
      await claim(1, database.insert(leases).values({ name, owner, epoch: 1, beat: 0 }).onConflictDoNothing())
    } else if (row.owner === null || isStale(row)) {
      const next = { owner, epoch: row.epoch + 1, beat: row.beat + 1 }
      const isUnchanged = and(eq(leases.name, name), eq(leases.epoch, row.epoch), eq(leases.beat, row.beat))
      await claim(next.epoch, database.update(leases).set(next).where(isUnchanged))
    }
  }

  /** Whether this process has seen the same beat for 4 s. */
  function isStale({ epoch, beat }: { epoch: number; beat: number }): boolean {
    const nowMs = deps.monotonicMs()
    if (seen?.epoch !== epoch || seen.beat !== beat) seen = { epoch, beat, atMs: nowMs }
    return nowMs - seen.atMs >= takeoverMs
  }

  function lose(how: string): void {
    log.info({ lease: name, epoch: held?.epoch }, how)
    held = undefined
  }

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        await (held ? renew(held.epoch) : standBy())
      } catch (error) {
        log.warn({ err: error, lease: name }, 'the lease could be neither renewed nor read; trying again')
      }
      if (held && !current()) lose('lease lost')
      await pause(beatMs, closing.signal)
    }
  }
  const running = run()

  return {
    current,
    async close() {
      closing.abort()
      await running
      if (!held) return
      const released = database.update(leases).set({ owner: null }).where(isOurs(held.epoch))
      lose('lease given up')
      await writer.write([released])
    },
  }
}
