// 2. From the outbox to the broker, in batches, as soon as committed. Next: processor/receive-requests.ts
import { setTimeout as sleep } from 'node:timers/promises'
import type { Broker } from '@posta/common/broker/broker.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import type { Component } from '@posta/common/service/component.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { and, asc, eq, gt, lte, max, sql } from 'drizzle-orm'
import type { Writer } from '../database/commit.ts'
import type { Held, Lease } from '../database/lease.ts'
import type { Database } from '../database/open.ts'
import { isPending, operations, outbox } from '../database/schema.ts'
import { requestOf } from './request.ts'
import { RESEND_AFTER_MS } from './submit.ts'

const MAX_BATCH = 500
/** How soon rows that another gateway wrote are seen; those of this process wake the relay at once. */
const POLL_MS = 20
const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 2000
const SWEEP_EVERY_MS = 5000
const MAX_RESENDS_AT_ONCE = 100

/** What waited when the broker took messages again, after trouble. */
interface Backlog {
  readonly toId: number
  readonly sinceMs: number
  /** How many went with the first batch, which began the clock. */
  readonly first: number
}

/**
 * Sends the outbox, lowest id first, while this process holds the lease: one relay at a time, so that one user's
 * messages keep their order. A row goes after the broker has its message; a crash between sends it again. While nothing
 * waits, the requests of operations that have been pending for long enter the outbox once more.
 */
export function startRelay(options: {
  database: Database
  writer: Writer
  lease: Lease
  broker: Pick<Broker, 'publish'>
  log: Logger
  deps: Pick<Deps, 'now' | 'monotonicMs'>
}) {
  const { database, writer, lease, broker, log, deps } = options
  const stopping = new AbortController()
  const commits = wakeUps((wake) => writer.onCommit(wake))
  let closing = false
  let trouble: unknown
  let nextSweepMs = 0

  async function run(): Promise<void> {
    let pauseMs = FIRST_PAUSE_MS
    while (!stopping.signal.aborted) {
      try {
        const held = lease.current()
        const sent = held ? await sendAll(held) : 0
        trouble = undefined
        pauseMs = FIRST_PAUSE_MS
        if (closing) return
        if (held && sent === 0) await sweep(held)
        await commits.next(held ? POLL_MS : 10 * POLL_MS)
      } catch (error) {
        if (!trouble) log.warn({ err: error }, 'the outbox cannot be sent; trying again')
        trouble = error
        await sleep(pauseMs, undefined, { signal: stopping.signal }).catch(() => {})
        pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)
      }
    }
  }

  /** Sends until nothing is left. The rows of one batch go while the next is being sent. */
  async function sendAll(held: Held): Promise<number> {
    let sent = 0
    let afterId = 0
    let removed = Promise.resolve()
    let backlog: Backlog | undefined
    try {
      while (lease.current()?.epoch === held.epoch) {
        const rows = await readBatch(afterId)
        const last = rows.at(-1)
        if (!last) break
        await broker.publish(rows.flatMap(({ message }) => message ?? []))
        sent += rows.length
        if (trouble) backlog = { toId: await newestId(), sinceMs: deps.monotonicMs(), first: sent }
        trouble = undefined
        if (backlog && last.id >= backlog.toId) {
          tell(backlog, sent)
          backlog = undefined
        }
        await removed
        removed = remove(last.id, held)
        // Its rejection is waited for below; it must not count as unhandled until then.
        removed.catch(() => {})
        afterId = last.id
      }
    } finally {
      await removed
    }
    return sent
  }

  async function newestId(): Promise<number> {
    const [newest] = await database.select({ id: max(outbox.id) }).from(outbox)
    return newest?.id ?? 0
  }

  function tell({ sinceMs, first }: Backlog, messages: number): void {
    const tookMs = Math.round(deps.monotonicMs() - sinceMs)
    const perSecond = Math.round((1000 * (messages - first)) / tookMs)
    log.info({ messages, tookMs, ...(tookMs > 0 && { perSecond }) }, 'what had waited in the outbox is sent')
  }

  async function readBatch(afterId: number): Promise<{ id: number; message: Outgoing | undefined }[]> {
    const rows = await database
      .select({ id: outbox.id, event: outbox.event, operation: operations })
      .from(outbox)
      .leftJoin(operations, eq(operations.id, outbox.operationId))
      .where(gt(outbox.id, afterId))
      .orderBy(asc(outbox.id))
      .limit(MAX_BATCH)
    return rows.map(({ id, event, operation }) => {
      if (event) return { id, message: encode(event) }
      // While a request waited to be sent again its operation may have become terminal, and its rates been let go.
      return { id, message: operation?.rates ? encode(requestOf({ ...operation, rates: operation.rates })) : undefined }
    })
  }

  async function remove(toId: number, held: Held): Promise<void> {
    await writer.write([database.delete(outbox).where(and(lte(outbox.id, toId), held.stillHeld))])
  }

  async function sweep(held: Held): Promise<void> {
    if (deps.monotonicMs() < nextSweepMs) return
    nextSweepMs = deps.monotonicMs() + SWEEP_EVERY_MS
    const now = deps.now()
    const due = await database
      .select({ id: operations.id })
      .from(operations)
      .where(and(isPending, lte(operations.resendAt, now)))
      .orderBy(asc(operations.resendAt))
      .limit(MAX_RESENDS_AT_ONCE)
    if (due.length === 0) return
    log.info({ operations: due.length }, 'requests of operations that are still pending are sent again')
    // By id: the order in which they were accepted.
    const ids = JSON.stringify(due.map(({ id }) => id).sort())
    const isDue = sql`${operations.id} IN (SELECT value FROM json_each(${ids})) AND ${isPending} AND ${held.stillHeld}`
    await writer.write([
      sql`INSERT INTO outbox (operation_id) SELECT ${operations.id} FROM ${operations} WHERE ${isDue} ORDER BY ${operations.id}`,
      sql`UPDATE ${operations} SET resends = resends + 1, resend_at = ${now} + ${RESEND_AFTER_MS} * (2 << min(resends, 10)) WHERE ${isDue}`,
    ])
  }

  const running = run()
  return {
    name: 'relay',
    check() {
      if (trouble) throw trouble
    },
    async close(graceMs: number) {
      closing = true
      commits.wake()
      const late = Promise.withResolvers<void>()
      const timer = setTimeout(() => {
        stopping.abort()
        // A publish under way cannot be called back: its rows stay in the outbox, and are sent again by whoever is next.
        late.resolve()
      }, graceMs)
      await Promise.race([running, late.promise])
      clearTimeout(timer)
    },
  } satisfies Component
}

/** Waits that end at the next event, or at once if one came since the last wait. */
function wakeUps(listen: (wake: () => void) => void) {
  let pending = false
  let waiting: (() => void) | undefined
  const wake = () => {
    pending = true
    waiting?.()
  }
  listen(wake)
  return {
    wake,
    async next(atMostMs: number): Promise<void> {
      if (!pending) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, atMostMs)
          waiting = () => {
            clearTimeout(timer)
            resolve()
          }
        })
      }
      waiting = undefined
      pending = false
    },
  }
}
