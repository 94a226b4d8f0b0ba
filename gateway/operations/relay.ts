// 2. Sends the outbox to the broker, in batches. Next: processor/receive-requests.ts
import type { Broker } from '@posta/common/broker/broker.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import { backoff, pause } from '@posta/common/service/backoff.ts'
import type { Component } from '@posta/common/service/component.ts'
import { within } from '@posta/common/service/deadline.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { and, asc, eq, gt, lte, sql } from 'drizzle-orm'
import type { Writer } from '../database/commit.ts'
import type { Held, Lease } from '../database/lease.ts'
import type { Database } from '../database/open.ts'
import { countOutbox } from '../database/outbox.ts'
import { operations, outbox } from '../database/schema.ts'
import { toRequest } from './operation.ts'
import { createResend } from './resend.ts'

const MAX_BATCH = 500
/** How soon the relay sees rows of other gateways. A commit of this process wakes it at once. */
const POLL_MS = 20

interface Backlog {
  readonly rows: number
  readonly sinceMs: number
  /** How many of the rows had been sent by `sinceMs`. */
  readonly sentBefore: number
}

/**
 * Sends the outbox, lowest id first, while this process holds the lease. Only one relay works at a time, so that one
 * user's messages keep their order. A row is deleted once the broker holds its message; after a crash in between it is sent
 * again. While the outbox is empty, requests of operations that have been pending for too long enter it once more.
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
  const resend = createResend({ writer, log, deps })
  const readBatch = batchReader(database)
  const attempts = backoff({ firstMs: 100, longestMs: 2000 })
  const stopping = new AbortController()
  let committed = new AbortController()
  let closing = false
  let failure: unknown

  const wake = () => committed.abort()
  writer.onCommit(wake)

  async function run(): Promise<void> {
    while (!stopping.signal.aborted) {
      try {
        const held = lease.current()
        const sent = held ? await sendAll(held) : 0
        failure = undefined
        attempts.reset()
        if (closing) return
        if (held && sent === 0) await resend(held)
        await pause(held ? POLL_MS : 10 * POLL_MS, committed.signal)
        committed = new AbortController()
      } catch (error) {
        if (!failure) log.warn({ err: error }, 'the outbox cannot be sent; trying again')
        failure = error
        await attempts.pause(stopping.signal)
      }
    }
  }

  /** Sends until nothing is left or the lease is lost. The rows of one batch are deleted while the next one is sent. */
  async function sendAll(held: Held): Promise<number> {
    let sent = 0
    let afterId = 0
    let deleted = Promise.resolve()
    let backlog: Backlog | undefined
    try {
      while (lease.current()?.epoch === held.epoch) {
        const rows = await readBatch(afterId)
        const last = rows.at(-1)
        if (!last) break
        await broker.publish(rows.flatMap(({ message }) => message ?? []))
        sent += rows.length
        if (failure)
          backlog = { rows: await countOutbox(database), sinceMs: deps.monotonicMs(), sentBefore: rows.length }
        failure = undefined
        if (backlog && sent >= backlog.rows) {
          logBacklog(log, backlog, sent, deps.monotonicMs())
          backlog = undefined
        }
        await deleted
        deleted = deleteUpTo(last.id, held)
        // Its rejection is handled below. Until then it must not count as unhandled.
        deleted.catch(() => {})
        afterId = last.id
      }
    } finally {
      await deleted
    }
    return sent
  }

  async function deleteUpTo(id: number, held: Held): Promise<void> {
    await writer.write([database.delete(outbox).where(and(lte(outbox.id, id), held.stillHeld))])
  }

  const running = run()
  return {
    name: 'relay',
    check() {
      if (failure) throw failure
    },
    async close(graceMs: number) {
      closing = true
      wake()
      // A publish that hangs cannot be cancelled. Its rows stay in the outbox, and the next relay sends them again.
      await within(running, graceMs, 'Sending the outbox').catch(() => stopping.abort())
    },
  } satisfies Component
}

function batchReader(database: Database) {
  // It is asked many times a second. Made anew each time, the query would take longer than the read.
  const after = database
    .select({ id: outbox.id, event: outbox.event, operation: operations })
    .from(outbox)
    .leftJoin(operations, eq(operations.id, outbox.operationId))
    .where(gt(outbox.id, sql.placeholder('afterId')))
    .orderBy(asc(outbox.id))
    .limit(MAX_BATCH)
    .prepare()
  return async (afterId: number) => {
    const rows = await after.all({ afterId })
    return rows.map(({ id, event, operation }) => {
      if (event) return { id, message: encode(event) }
      // An operation that became terminal while its second request waited here needs none.
      return { id, message: operation?.status === 'pending' ? toRequest(operation) : undefined }
    })
  }
}

/** After an outage: how fast what had waited until the broker came back was sent. */
function logBacklog(log: Logger, { sinceMs, sentBefore }: Backlog, messages: number, nowMs: number): void {
  const tookMs = Math.round(nowMs - sinceMs)
  const perSecond = Math.round((1000 * (messages - sentBefore)) / tookMs)
  log.info({ messages, tookMs, ...(tookMs > 0 && { perSecond }) }, 'the backlog of the outbox is sent')
}
