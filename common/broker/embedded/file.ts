import { Database, SQLiteError } from 'bun:sqlite'
import { resolve } from 'node:path'
import { type Topic, topics } from '../../messages/topics.ts'
import { makePrivate } from '../../storage/sqlite-file.ts'
import { type Messages, openMessages } from './messages.ts'

/** One connection for each file in a process: whoever opens the same path shares it, its transactions and its news. */
export interface EmbeddedFile {
  readonly db: Database
  messages(topic: Topic): Messages
  /** What it holds, without the room that deleted messages have left. */
  usedBytes(): number
  /**
   * Runs `work` in the next transaction, together with what others in this process write, in the order of the calls.
   * Resolves when that transaction is synced to the disk; a fault of one rejects all that joined it. `lazily`: nobody
   * waits for it, so it joins the next transaction that is needed anyhow, or has one of its own within 20 ms.
   */
  write<Result>(work: () => Result, options?: { bytes?: number; lazily?: boolean }): Promise<Result>
  /** Called within `work`: wakes the listeners of this process to `topic`, once the transaction is synced. */
  changed(topic: Topic): void
  /** Until the returned function is called, `wake` is called on news about the topic, `beat` every second. */
  attach(listener: Listener): () => void
  /** The last one to release the file closes it. */
  release(): void
}

interface Listener {
  readonly topic: Topic
  wake(): void
  beat(): void
}

interface Job {
  readonly bytes: number
  run(): void
  resolve(): void
  reject(reason: unknown): void
}

const FORMAT = 1
/** How often a process with subscribers looks for news of other processes; more often while it publishes itself. */
const POLL_MS = 10
const BUSY_POLL_MS = 2
const BUSY_MS = 500
const BEAT_MS = 1000
const LAZY_MS = 20
/** SQLite waits for a lock synchronously, and nothing else runs meanwhile: a short try, then an asynchronous pause. */
const LOCK_TRY_MS = 10
const LOCK_PAUSE_MAX_MS = 20
const LOCK_GIVE_UP_MS = 5000
/** What one transaction takes at most, unless one call alone brings more: the event loop stands still for so long. */
const MAX_TRANSACTION_BYTES = 4 * 1024 * 1024
const MAX_TRANSACTION_JOBS = 2000
const MAX_QUEUED_BYTES = 64 * 1024 * 1024

const openFiles = new Map<string, { readonly file: EmbeddedFile; users: number }>()

/**
 * Opens the file, making it and its folder where they are missing. Synchronous, since it happens once, at the start; it
 * waits up to 5 s for other processes that make the same file.
 * @throws where it cannot be opened, or is no broker's file.
 */
export function openFile(path: string): EmbeddedFile {
  const absolute = resolve(path)
  const shared = openFiles.get(absolute) ?? { file: createFile(connect(absolute)), users: 0 }
  openFiles.set(absolute, shared)
  shared.users++
  return {
    ...shared.file,
    release() {
      if (--shared.users > 0) return
      openFiles.delete(absolute)
      shared.file.release()
    },
  }
}

function createFile(db: Database): EmbeddedFile {
  const begin = db.prepare('BEGIN IMMEDIATE')
  const commit = db.prepare('COMMIT')
  const rollback = db.prepare('ROLLBACK')
  const dataVersion = db.prepare<{ data_version: number }, []>('PRAGMA data_version')
  const used = db.prepare<{ bytes: number }, []>(
    `SELECT (page_count - freelist_count) * page_size AS bytes
     FROM pragma_page_count, pragma_freelist_count, pragma_page_size`,
  )

  const messages = new Map<Topic, Messages>()
  const listeners = new Set<Listener>()
  let queue: Job[] = []
  let queuedBytes = 0
  let changedTopics = new Set<Topic>()
  let immediate: NodeJS.Immediate | undefined
  let timer: NodeJS.Timeout | undefined
  let lockedSinceMs: number | undefined
  let lockPauseMs = 1

  function flushSoon(): void {
    // Not in this tick: whoever else was woken by the same input joins.
    if (!immediate && lockedSinceMs === undefined) immediate = setImmediate(flush)
  }

  function flushWithin(ms: number): void {
    timer ??= setTimeout(flush, ms)
  }

  function flush(): void {
    clearImmediate(immediate)
    clearTimeout(timer)
    immediate = undefined
    timer = undefined
    if (queue.length === 0) return
    try {
      begin.run()
    } catch (error) {
      lockedSinceMs ??= performance.now()
      if (isLocked(error) && performance.now() - lockedSinceMs < LOCK_GIVE_UP_MS) {
        flushWithin(lockPauseMs)
        lockPauseMs = Math.min(lockPauseMs * 2, LOCK_PAUSE_MAX_MS)
        return
      }
      unlock()
      const reason = isLocked(error) ? locked(error) : error
      for (const job of take(queue.length)) job.reject(reason)
      return
    }
    unlock()
    const jobs = take(countForTransaction())
    try {
      for (const job of jobs) job.run()
      commit.run()
      for (const job of jobs) job.resolve()
      for (const listener of listeners) if (changedTopics.has(listener.topic)) listener.wake()
    } catch (error) {
      // Some faults (a full disk) have rolled back by themselves.
      if (db.inTransaction) rollback.run()
      for (const job of jobs) job.reject(error)
    }
    changedTopics = new Set()
    if (queue.length > 0) flushSoon()
  }

  function unlock(): void {
    lockedSinceMs = undefined
    lockPauseMs = 1
  }

  function countForTransaction(): number {
    let bytes = 0
    const end = queue.findIndex((job, index) => {
      bytes += job.bytes
      return index > 0 && (bytes > MAX_TRANSACTION_BYTES || index >= MAX_TRANSACTION_JOBS)
    })
    return end === -1 ? queue.length : end
  }

  function take(count: number): Job[] {
    const jobs = queue.slice(0, count)
    queue = queue.slice(count)
    for (const job of jobs) queuedBytes -= job.bytes
    return jobs
  }

  /** Undefined if it cannot be read: then the listeners look, and meet the fault where they can deal with it. */
  function versionNow(): number | undefined {
    try {
      return dataVersion.get()?.data_version
    } catch {
      return undefined
    }
  }

  let seenVersion = versionNow()
  let poll: NodeJS.Timeout | undefined
  let beat: NodeJS.Timeout | undefined
  let busyUntilMs = 0

  function lookForNews(): void {
    poll = setTimeout(lookForNews, performance.now() < busyUntilMs ? BUSY_POLL_MS : POLL_MS)
    const version = versionNow()
    if (version === seenVersion && version !== undefined) return
    seenVersion = version
    for (const listener of listeners) listener.wake()
  }

  return {
    db,
    messages(topic) {
      const known = messages.get(topic)
      if (known) return known
      const opened = openMessages(db, topic)
      messages.set(topic, opened)
      return opened
    },
    usedBytes: () => used.get()?.bytes ?? 0,
    write<Result>(work: () => Result, { bytes = 0, lazily = false } = {}): Promise<Result> {
      if (queuedBytes + bytes > MAX_QUEUED_BYTES && queuedBytes > 0)
        return Promise.reject(new Error("Too much waits to be written to the broker's file. Try again later."))
      return new Promise((resolve, reject) => {
        let result: Result
        queue.push({
          bytes,
          run: () => {
            result = work()
          },
          resolve: () => resolve(result),
          reject,
        })
        queuedBytes += bytes
        if (lazily) flushWithin(LAZY_MS)
        else flushSoon()
      })
    },
    changed(topic) {
      changedTopics.add(topic)
      busyUntilMs = performance.now() + BUSY_MS
    },
    attach(listener) {
      listeners.add(listener)
      poll ??= setTimeout(lookForNews, POLL_MS)
      beat ??= setInterval(() => {
        for (const each of listeners) each.beat()
      }, BEAT_MS)
      return () => {
        listeners.delete(listener)
        if (listeners.size > 0) return
        clearTimeout(poll)
        clearInterval(beat)
        poll = undefined
        beat = undefined
      }
    },
    release() {
      clearImmediate(immediate)
      clearTimeout(timer)
      for (const job of take(queue.length)) job.reject(new Error("The broker's file has been closed."))
      db.close()
    },
  }
}

function connect(path: string): Database {
  makePrivate(path)
  let db: Database | undefined
  try {
    db = new Database(path, { create: true, strict: true })
    makeComplete(db)
    db.run('PRAGMA synchronous = FULL')
    db.run(`PRAGMA journal_size_limit = ${MAX_QUEUED_BYTES}`)
    return db
  } catch (error) {
    db?.close()
    throw new Error(`The broker's file ${path} cannot be opened: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    })
  }
}

/** Several processes may do this at once; who meets a lock looks again. */
function makeComplete(db: Database): void {
  db.run(`PRAGMA busy_timeout = ${LOCK_TRY_MS}`)
  const startMs = performance.now()
  for (;;) {
    try {
      makeWhatIsMissing(db)
      return
    } catch (error) {
      if (!isLocked(error) || performance.now() - startMs > LOCK_GIVE_UP_MS) throw error
      Bun.sleepSync(LOCK_TRY_MS)
    }
  }
}

/** A file that is complete is only read, so that no writer can hold up a start. */
function makeWhatIsMissing(db: Database): void {
  const mode = db.query<{ journal_mode: string }, []>('PRAGMA journal_mode').get()?.journal_mode
  if (mode !== 'wal') db.run('PRAGMA journal_mode = WAL')
  if (isComplete(db)) return
  db.run('BEGIN IMMEDIATE')
  try {
    if (!isComplete(db)) {
      if (formatOf(db) === 0 && db.query('SELECT 1 FROM sqlite_schema').get())
        throw new Error('it holds something else')
      db.run('CREATE TABLE IF NOT EXISTS topic (name TEXT PRIMARY KEY, next INTEGER NOT NULL) STRICT, WITHOUT ROWID')
      db.run(
        `CREATE TABLE IF NOT EXISTS consumer (
          "group" TEXT, topic TEXT, next INTEGER NOT NULL, owner TEXT, epoch INTEGER NOT NULL, beat INTEGER NOT NULL,
          PRIMARY KEY ("group", topic)
        ) STRICT, WITHOUT ROWID`,
      )
      for (const topic of Object.values(topics)) {
        // The small columns come first: what is large spills over to other pages, which then need no reading.
        db.run(
          `CREATE TABLE IF NOT EXISTS "${topic}" (
            offset INTEGER PRIMARY KEY, timestamp INTEGER NOT NULL, key BLOB NOT NULL, headers TEXT NOT NULL,
            value BLOB NOT NULL
          ) STRICT`,
        )
        db.query('INSERT INTO topic (name, next) VALUES (?, 0) ON CONFLICT DO NOTHING').run(topic)
      }
      db.run(`PRAGMA user_version = ${FORMAT}`)
    }
    db.run('COMMIT')
  } catch (error) {
    if (db.inTransaction) db.run('ROLLBACK')
    throw error
  }
}

function isComplete(db: Database): boolean {
  const format = formatOf(db)
  if (format === 0) return false
  if (format !== FORMAT) throw new Error('another version of this program wrote it')
  const made = db.query<{ name: string }, []>('SELECT name FROM topic').all()
  return Object.values(topics).every((topic) => made.some(({ name }) => name === topic))
}

function formatOf(db: Database): number | undefined {
  return db.query<{ user_version: number }, []>('PRAGMA user_version').get()?.user_version
}

export function locked(cause?: unknown): Error {
  return new Error("Another process holds the broker's file locked.", { cause })
}

/** SQLITE_BUSY and what extends it: another process holds the lock. */
function isLocked(error: unknown): boolean {
  return error instanceof SQLiteError && ((error.errno ?? 0) & 0xff) === 5
}
