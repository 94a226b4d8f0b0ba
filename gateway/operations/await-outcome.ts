// 7. Wakes those who wait for an operation: Prefer: wait, SSE, the subscription. Next: monitor/events/receive.ts
import { pause } from '@posta/common/service/backoff.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { and, ne, sql } from 'drizzle-orm'
import type { Database } from '../database/open.ts'
import { operations } from '../database/schema.ts'
import { isTerminal, type Operation } from './operation.ts'
import type { Read } from './read.ts'

const POLL_MS = 50
const MAX_WAITERS = 10_000
/** So that one user cannot take all places. */
const MAX_WAITERS_PER_USER = 200

export type Waiters = ReturnType<typeof createWaiters>

/**
 * Everyone in this process who waits for an operation's outcome. Another gateway may receive the result, so besides `wake`
 * one poll reads the status of every operation that someone waits for. It runs only while someone waits.
 */
export function createWaiters(options: { database: Database; read: Read; log: Logger }) {
  const { database, read, log } = options
  const waiters = new Map<string, Set<() => void>>()
  const perUser = new Map<string, number>()
  let count = 0
  let polling = false

  /** Wakes those who wait for these operations. Call it once this process has committed their results. */
  function wake(ids: readonly string[]): void {
    for (const id of ids) for (const resolve of waiters.get(id) ?? []) resolve()
  }

  async function poll(): Promise<void> {
    polling = true
    for (await pause(POLL_MS); waiters.size > 0; await pause(POLL_MS)) {
      try {
        const ids = JSON.stringify([...waiters.keys()])
        const terminal = await database
          .select({ id: operations.id })
          .from(operations)
          .where(and(sql`${operations.id} IN (SELECT value FROM json_each(${ids}))`, ne(operations.status, 'pending')))
        wake(terminal.map(({ id }) => id))
      } catch (error) {
        log.warn({ err: error }, 'the operations that clients wait for could not be read; trying again')
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

  /**
   * The operation once it is terminal, or as it is when `signal` aborts, read from the database.
   * @throws Problem `not-found`; `too-many-requests` or `overloaded` if too many are waiting already.
   */
  async function awaitOutcome(user: string, id: string, signal: AbortSignal): Promise<Operation> {
    enter(user)
    const woken = Promise.withResolvers<void>()
    const resolvers = waiters.get(id) ?? new Set()
    waiters.set(id, resolvers.add(woken.resolve))
    signal.addEventListener('abort', () => woken.resolve(), { once: true })
    try {
      // Registered before this read, so that a result that arrives in between is not missed.
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

  /** Yields the operation as it is, and again when it is terminal. Ends then, or when `signal` aborts. */
  async function* changes(user: string, id: string, signal: AbortSignal): AsyncGenerator<Operation, void, void> {
    const first = await read.one(user, id)
    yield first
    if (isTerminal(first)) return
    const last = await awaitOutcome(user, id, signal)
    if (isTerminal(last)) yield last
  }

  return { awaitOutcome, changes, wake }
}
