import type { Database } from 'bun:sqlite'
import { setImmediate } from 'node:timers/promises'
import { backoff } from '../../service/backoff.ts'
import { isLocked } from '../../storage/sqlite-file.ts'
import { LOCK_GIVE_UP_MS } from './schema.ts'

const LAZY_MS = 20
/** The most in one transaction, unless a single write has more. Nothing else in the process runs meanwhile. */
const MAX_TRANSACTION_BYTES = 4 * 1024 * 1024
const MAX_TRANSACTION_WRITES = 2000
const MAX_QUEUED_BYTES = 64 * 1024 * 1024

/**
 * Runs `work` in the next transaction, together with what others in this process write, in the order of the calls.
 * Resolves when the transaction is synced to the disk. Rejects where any `work` in it throws.
 * @param options.bytes what it keeps in memory until then
 * @param options.lazily nobody waits for it: it joins another transaction, or has one of its own after 20 ms
 */
export type GroupCommit = <Result>(
  work: () => Result,
  options?: { bytes?: number; lazily?: boolean },
) => Promise<Result>

interface Write {
  readonly bytes: number
  run(): void
  resolve(): void
  reject(reason: unknown): void
}

/** @param onEnd is called after each transaction, committed or not */
export function createGroupCommit(db: Database, onEnd: () => void): GroupCommit {
  const [begin, commit, rollback] = [db.prepare('BEGIN IMMEDIATE'), db.prepare('COMMIT'), db.prepare('ROLLBACK')]
  const queue: Write[] = []
  let queuedBytes = 0
  let isDue = false
  let isWorking = false
  let timer: NodeJS.Timeout | undefined

  async function flush(): Promise<void> {
    isDue = true
    if (isWorking) return
    isWorking = true
    while (isDue) {
      // Others that the same event wakes join.
      await setImmediate()
      await runTransaction()
    }
    isWorking = false
  }

  async function runTransaction(): Promise<void> {
    let writes: Write[] | undefined
    try {
      await beginWhenUnlocked()
      writes = take(countForTransaction())
      for (const write of writes) write.run()
      commit.run()
      for (const write of writes) write.resolve()
    } catch (error) {
      // Some faults, such as a full disk, have rolled it back already.
      if (writes && db.inTransaction) rollback.run()
      for (const write of writes ?? take(queue.length)) write.reject(error)
    }
    onEnd()
  }

  async function beginWhenUnlocked(): Promise<void> {
    const pauses = backoff({ firstMs: 1, longestMs: 20 })
    const startMs = performance.now()
    for (;;) {
      try {
        begin.run()
        return
      } catch (error) {
        if (!isLocked(error)) throw error
        if (performance.now() - startMs > LOCK_GIVE_UP_MS)
          throw new Error("Another process holds the broker's file locked.", { cause: error })
      }
      await pauses.pause()
    }
  }

  function countForTransaction(): number {
    let bytes = 0
    const end = queue.findIndex((write, index) => {
      bytes += write.bytes
      return index > 0 && (bytes > MAX_TRANSACTION_BYTES || index >= MAX_TRANSACTION_WRITES)
    })
    return end === -1 ? queue.length : end
  }

  function take(count: number): Write[] {
    const taken = queue.splice(0, count)
    for (const { bytes } of taken) queuedBytes -= bytes
    clearTimeout(timer)
    timer = undefined
    isDue = queue.length > 0
    return taken
  }

  return async <Result>(work: () => Result, { bytes = 0, lazily = false } = {}) => {
    if (queuedBytes > 0 && queuedBytes + bytes > MAX_QUEUED_BYTES)
      throw new Error("Too much waits to be written to the broker's file. Try again later.")
    const { promise, resolve, reject } = Promise.withResolvers<Result>()
    let result: Result
    const run = () => {
      result = work()
    }
    queue.push({ bytes, run, resolve: () => resolve(result), reject })
    queuedBytes += bytes
    if (lazily) timer ??= setTimeout(flush, LAZY_MS)
    else void flush()
    return promise
  }
}
