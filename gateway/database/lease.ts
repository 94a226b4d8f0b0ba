import { setTimeout as sleep } from 'node:timers/promises'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { and, eq, exists, isNull, type SQL, sql } from 'drizzle-orm'
import type { Statement, Writer } from './commit.ts'
import type { Database } from './open.ts'
import { leases } from './schema.ts'

export interface Held {
  readonly epoch: number
  /** For the WHERE of every write that only the holder may do: true while this very lease is held. */
  readonly stillHeld: SQL
}

export interface Lease {
  /** Undefined while this process does not hold the lease, or cannot know that it does. */
  current(): Held | undefined
  /** Gives the lease up, so that another can have it at once. */
  close(): Promise<void>
}

/**
 * Tries for the lease `name`, at once and every second until it is closed. One process holds it at a time. No wall clock
 * is trusted: the holder raises `beat` every second, and another takes the lease, with the next epoch, once its own
 * monotonic clock has seen the same beat for 4 s. What nobody ever held, or someone gave up, is taken at once.
 * @param options.onChange is called when the lease is got and when it is lost.
 */
export function holdLease(options: {
  name: string
  database: Database
  writer: Writer
  deps: Pick<Deps, 'monotonicMs' | 'newId'>
  log: Pick<Logger, 'info' | 'warn'>
  onChange?: (held: Held | undefined) => void
  beatMs?: number
  takeoverMs?: number
}): Lease {
  const { name, database, writer, deps, log, onChange, beatMs = 1000, takeoverMs = 4000 } = options
  const owner = deps.newId()
  const closing = new AbortController()
  let held: Held | undefined
  /** The beginning of the last write that renewed it: another cannot have seen that beat before. */
  let renewedAtMs = 0
  let seen: { readonly epoch: number; readonly beat: number; readonly atMs: number } | undefined

  const current = () => (held && deps.monotonicMs() - renewedAtMs < takeoverMs ? held : undefined)
  const isOurs = (epoch: number) => and(eq(leases.name, name), eq(leases.owner, owner), eq(leases.epoch, epoch))

  function change(next: Held | undefined): void {
    if (held?.epoch === next?.epoch) return
    held = next
    log.info(
      { lease: name, epoch: next?.epoch },
      next ? 'lease taken' : closing.signal.aborted ? 'lease given up' : 'lease lost',
    )
    onChange?.(next)
  }

  /** Whether `statement` made this process the holder of `epoch`, or left it that. */
  async function claim(epoch: number, statement: Statement): Promise<boolean> {
    const startedAtMs = deps.monotonicMs()
    const [result] = await writer.write([statement])
    if (result?.rowsAffected !== 1) return false
    renewedAtMs = startedAtMs
    if (held?.epoch !== epoch)
      change({ epoch, stillHeld: exists(database.select({ held: sql`1` }).from(leases).where(isOurs(epoch))) })
    return true
  }

  async function renew(epoch: number): Promise<void> {
    const next = { beat: sql`${leases.beat} + 1` }
    if (await claim(epoch, database.update(leases).set(next).where(isOurs(epoch)))) return
    seen = undefined
    change(undefined)
  }

  async function standBy(): Promise<void> {
    const [row] = await database.select().from(leases).where(eq(leases.name, name))
    if (!row) {
      await claim(1, database.insert(leases).values({ name, owner, epoch: 1, beat: 0 }).onConflictDoNothing())
      return
    }
    if (row.owner !== null && (row.epoch !== seen?.epoch || row.beat !== seen.beat)) {
      seen = { epoch: row.epoch, beat: row.beat, atMs: deps.monotonicMs() }
      return
    }
    if (row.owner !== null && seen && deps.monotonicMs() - seen.atMs < takeoverMs) return
    const asSeen = and(
      eq(leases.name, name),
      eq(leases.epoch, row.epoch),
      eq(leases.beat, row.beat),
      row.owner === null ? isNull(leases.owner) : eq(leases.owner, row.owner),
    )
    const next = { owner, epoch: row.epoch + 1, beat: row.beat + 1 }
    await claim(next.epoch, database.update(leases).set(next).where(asSeen))
  }

  async function beat(): Promise<void> {
    try {
      await (held ? renew(held.epoch) : standBy())
    } catch (error) {
      log.warn({ err: error, lease: name }, 'the lease could not be renewed or looked at; trying again')
    }
    if (held && !current()) change(undefined)
  }

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      await beat()
      await sleep(beatMs, undefined, { signal: closing.signal }).catch(() => {})
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
      change(undefined)
      await writer.write([released])
    },
  }
}
