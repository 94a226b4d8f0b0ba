// 7. Wakes those who wait for an operation: Prefer: wait, SSE, the subscription. Next: monitor/events/receive.ts
import { pause } from '@posta/common/service/backoff.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { type SQL, sql } from 'drizzle-orm'
import { operations } from '../database/schema.ts'
import { isTerminal, type Operation } from './operation.ts'
import { progressBytes, type Read } from './read.ts'

const POLL_MS = 50
const MAX_WAITERS = 10_000
/** So that one user cannot take all places. */
const MAX_WAITERS_PER_USER = 200

export type Waiters = ReturnType<typeof createWaiters>

interface Waiter {
  wake(): void
  /** How much progress it has seen; undefined: it waits for the outcome alone. */
  seenBytes: number | undefined
}

/**
 * Everyone in this process who waits for an operation. Another gateway may receive its messages, so besides `wake` and
 * `wakeWatchers` one poll looks at every operation that someone waits for. It runs only while someone waits.
 */
export function createWaiters(options: {
  database: { all<Row>(query: SQL): Promise<Row[]> }
  read: Read
  log: Logger
}) {
  const { database, read, log } = options
  const waiters = new Map<string, Set<Waiter>>()
  const perUser = new Map<string, number>()
  let count = 0
  let polling = false

  /** Wakes those who wait for these operations. Call it once this process has committed their results. */
  function wake(ids: readonly string[]): void {
    for (const id of ids) for (const waiter of waiters.get(id) ?? []) waiter.wake()
  }

  /** Wakes those who wait for each change of these operations. Call it once this process has committed their progress. */
  function wakeWatchers(ids: readonly string[]): void {
    for (const id of ids) for (const waiter of waiters.get(id) ?? []) if (waiter.seenBytes !== undefined) waiter.wake()
  }

  async function poll(): Promise<void> {
    polling = true
    for (await pause(POLL_MS); waiters.size > 0; await pause(POLL_MS)) {
      try {
        const changed = await database.all<{ id: string; status: string }>(sql`
          SELECT ${operations.id} AS id, ${operations.status} AS status FROM json_each(${seenOfAll()}) AS waited
          JOIN ${operations} ON ${operations.id} = waited.key
          WHERE ${operations.status} <> 'pending' OR ${progressBytes} > waited.value`)
        for (const { id, status } of changed) (status === 'pending' ? wakeWatchers : wake)([id])
      } catch (error) {
        log.warn({ err: error }, 'the operations that clients wait for could not be read; trying again')
      }
    }
    polling = false
  }

  /** JSON: the least progress that a watcher of each operation has seen, or null if nobody watches its progress. */
  function seenOfAll(): string {
    const seen: Record<string, number | null> = {}
    for (const [id, each] of waiters) {
      let least: number | null = null
      for (const { seenBytes } of each)
        if (seenBytes !== undefined) least = least === null ? seenBytes : Math.min(least, seenBytes)
      seen[id] = least
    }
    return JSON.stringify(seen)
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

  /** Registers a waiter until it is left. @throws Problem `too-many-requests` or `overloaded` */
  function register(user: string, id: string, signal: AbortSignal, seenBytes?: number) {
    enter(user)
    let woken = Promise.withResolvers<void>()
    const waiter: Waiter = { seenBytes, wake: () => woken.resolve() }
    const others = waiters.get(id) ?? new Set()
    waiters.set(id, others.add(waiter))
    signal.addEventListener('abort', waiter.wake, { once: true })
    return {
      waiter,
      /** Resolves at the first wake since it was registered, or since the last that was awaited. */
      async woken(): Promise<void> {
        if (!polling) void poll()
        if (!signal.aborted) await woken.promise
        woken = Promise.withResolvers()
      },
      leave(): void {
        signal.removeEventListener('abort', waiter.wake)
        others.delete(waiter)
        if (others.size === 0) waiters.delete(id)
        leave(user)
      },
    }
  }

  /**
   * The operation once it is terminal, or as it is when `signal` aborts, read from the database.
   * @throws Problem `not-found`; `too-many-requests` or `overloaded` if too many are waiting already.
   */
  async function awaitOutcome(user: string, id: string, signal: AbortSignal): Promise<Operation> {
    const { woken, leave } = register(user, id, signal)
    try {
      // Registered before this read, so that a result that arrives in between is not missed.
      const now = await read.one(user, id)
      if (isTerminal(now) || signal.aborted) return now
      await woken()
      return await read.one(user, id)
    } finally {
      leave()
    }
  }

  /**
   * Yields the operation as it is, and again each time that it has changed, with all progress up to then, until it is
   * terminal. Ends then, or when `signal` aborts.
   * @throws Problem before the first: `not-found`; `too-many-requests` or `overloaded` if too many are waiting already.
   */
  async function* changes(user: string, id: string, signal: AbortSignal): AsyncGenerator<Operation, void, void> {
    // Nothing was seen yet, so the first turn yields the operation as it is.
    let seenBytes = -1
    const { waiter, woken, leave } = register(user, id, signal, seenBytes)
    try {
      for (;;) {
        // Read after it was registered, or woken: what arrives later wakes it once more.
        const { operation, progressBytes } = await read.observe(user, id)
        const isLast = isTerminal(operation)
        const isNews = isLast || progressBytes > seenBytes
        seenBytes = progressBytes
        waiter.seenBytes = progressBytes
        if (isNews) yield operation
        if (isLast || signal.aborted) return
        await woken()
      }
    } finally {
      leave()
    }
  }

  return { awaitOutcome, changes, wake, wakeWatchers }
}
