import type { Database } from 'bun:sqlite'
import { resolve } from 'node:path'
import type { Topic } from '../../messages/topics.ts'
import { createGroupCommit, type GroupCommit } from './group-commit.ts'
import { type Messages, openMessages } from './messages.ts'
import { connect } from './schema.ts'

/** How often a process with members looks for what other processes wrote, and how often while it writes itself. */
const LOOK_MS = 10
const BUSY_LOOK_MS = 2
const BUSY_FOR_MS = 500

/** The broker's file. A process has one connection to it: whoever opens the same path shares it. */
export interface EmbeddedFile {
  readonly db: Database
  readonly write: GroupCommit
  messages(topic: Topic): Messages
  /** What it holds, without the room that deleted messages have left. */
  usedBytes(): number
  /** Called within a `write`: the topic's listeners in this process are woken once it is synced. */
  changed(topic: Topic): void
  /** Calls `wake` after each change to the topic, until the function that it returns is called. */
  listen(topic: Topic, wake: () => void): () => void
  /** The last release closes the file. Call it only when no write is pending. */
  release(): void
}

const openFiles = new Map<string, { readonly file: EmbeddedFile; users: number }>()

/** @throws Error where the file cannot be opened, or is not a broker's */
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
  const used = db.prepare<{ bytes: number }, []>(
    `SELECT (page_count - freelist_count) * page_size AS bytes
     FROM pragma_page_count, pragma_freelist_count, pragma_page_size`,
  )
  const dataVersion = db.prepare<{ data_version: number }, []>('PRAGMA data_version')
  const messages = new Map<Topic, Messages>()
  const listeners = new Set<{ readonly topic: Topic; readonly wake: () => void }>()
  const changed = new Set<Topic>()
  const write = createGroupCommit(db, () => {
    for (const { topic, wake } of listeners) if (changed.has(topic)) wake()
    changed.clear()
  })
  let seenVersion = version()
  let looking: NodeJS.Timeout | undefined
  let busyUntilMs = 0

  /** Changes when another process has committed. Undefined if it cannot be read. */
  function version(): number | undefined {
    try {
      return dataVersion.get()?.data_version
    } catch {
      return undefined
    }
  }

  function look(): void {
    looking = setTimeout(look, performance.now() < busyUntilMs ? BUSY_LOOK_MS : LOOK_MS)
    const before = seenVersion
    seenVersion = version()
    // If it cannot be read, the listeners are woken too: they meet the same error and handle it.
    if (seenVersion === undefined || seenVersion !== before) for (const { wake } of listeners) wake()
  }

  return {
    db,
    write,
    messages(topic) {
      const opened = messages.get(topic) ?? openMessages(db, topic)
      messages.set(topic, opened)
      return opened
    },
    usedBytes: () => used.get()?.bytes ?? 0,
    changed(topic) {
      changed.add(topic)
      busyUntilMs = performance.now() + BUSY_FOR_MS
    },
    listen(topic, wake) {
      const listener = { topic, wake }
      listeners.add(listener)
      looking ??= setTimeout(look, LOOK_MS)
      return () => {
        listeners.delete(listener)
        if (listeners.size > 0) return
        clearTimeout(looking)
        looking = undefined
      }
    },
    release: () => db.close(),
  }
}
