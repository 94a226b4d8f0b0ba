// 6. Wakes who waits for a result: Prefer: wait, the SSE stream and the GraphQL subscription. Next: monitor/events/receive.ts

import type { Logger } from '@posta/common/service/log.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { and, ne, sql } from 'drizzle-orm'
import type { Database } from '../database/open.ts'
import { operations } from '../database/schema.ts'
import { isTerminal, type Operation } from './operation.ts'
import type { Read } from './read.ts'

const POLL_MS = 50
/** Bounds in all and by user, so that nobody can take every place. */
const MAX_WAITERS = 10_000
const MAX_WAITERS_PER_USER = 200

/** Everyone in this process who waits for an operation's outcome. */
export interface Waiters {
  /**
   * The operation once it is terminal, or as it is when `signal` aborts. What it returns was read from the database.
   * @throws Problem `not-found`; `too-many-requests` or `overloaded` where too many wait already.
   */
  awaitOutcome(user: string, id: string, signal: AbortSignal): Promise<Operation>
  /** The operation as it is, and again when it is terminal. Ends then, or when `signal` aborts. */
  changes(user: string, id: string, signal: AbortSignal): AsyncGenerator<Operation, void, void>
  /** Wakes those who wait for these operations: this process has just committed their results. */
  wake(ids: readonly string[]): void
}

/**
 * A result may arrive at another gateway. So besides this process's own commits one poll looks at every operation that
 * someone here waits for, and only while someone does.
 */
export function createWaiters(options: { database: Database; read: Read; log: Logger }): Waiters {
  const { database, read, log } = options
  const waiters = new Map<string, Set<() => void>>()
  const perUser = new Map<string, number>()
  let count = 0
  let polling = false

  function wake(ids: readonly string[]): void {
    for (const id of ids) for (const resolve of waiters.get(id) ?? []) resolve()
  }

  /** Looks every 50 ms, until nobody waits. */
  async function poll(): Promise<void> {
    polling = true
    for (await Bun.sleep(POLL_MS); waiters.size > 0; await Bun.sleep(POLL_MS)) {
      try {
        const ids = JSON.stringify([...waiters.keys()])
        const terminal = await database
          .select({ id: operations.id })
          .from(operations)
          .where(and(sql`${operations.id} IN (SELECT value FROM json_each(${ids}))`, ne(operations.status, 'pending')))
        wake(terminal.map(({ id }) => id))
      } catch (error) {
        log.warn({ err: error }, 'operations that are waited for could not be read')
      }
    }
    polling = false
  }

  function enter(user: string): void {
    const own = perUser.get(user) ?? 0
    if (own >= MAX_WAITERS_PER_USER)
      throw new Problem('too-many-requests', 'You wait for too many operations at once.', { retryAfterS: 1 })
    if (count >= MAX_WAITERS) throw new Problem('overloaded', undefined, { retryAfterS: 1 })
    perUser.set(user, own + 1)
    count += 1
  }

  function leave(user: string): void {
    const own = (perUser.get(user) ?? 1) - 1
    if (own > 0) perUser.set(user, own)
    else perUser.delete(user)
    count -= 1
  }

  async function awaitOutcome(user: string, id: string, signal: AbortSignal): Promise<Operation> {
    enter(user)
    const woken = Promise.withResolvers<void>()
    const resolvers = waiters.get(id) ?? new Set()
    waiters.set(id, resolvers.add(woken.resolve))
    signal.addEventListener('abort', () => woken.resolve(), { once: true })
    try {
      // Registered first, read second: a result that comes between is not missed.
      const now = await read.one(user, id)
      if (isTerminal(now) || signal.aborted) return now
      if (!polling) void poll()
      await woken.promise
      return await read.one(user, id)
    } finally {
      resolvers.delete(woken.resolve)
      if (resolvers.size === 0) waiters.delete(id)
      leave(user)
    }
  }

  return {
    awaitOutcome,
    wake,
    async *changes(user, id, signal) {
      const first = await read.one(user, id)
      yield first
      if (isTerminal(first)) return
      const last = await awaitOutcome(user, id, signal)
      if (isTerminal(last)) yield last
    },
  }
}
