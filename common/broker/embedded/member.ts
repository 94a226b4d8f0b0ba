import { setTimeout as sleep } from 'node:timers/promises'
import type { Delivered } from '../../messages/message.ts'
import type { Group, Topic } from '../../messages/topics.ts'
import type { Deps } from '../../service/deps.ts'
import type { Logger } from '../../service/log.ts'
import type { BatchHandler } from '../broker.ts'
import type { EmbeddedFile } from './file.ts'
import { PARTITION } from './messages.ts'

/** One member's work on one topic: it stands by until it holds the lease, and then delivers batch after batch. */
export interface Member {
  /** Resolves when it has the lease, or stands by since another has it. */
  readonly joined: Promise<void>
  state(): 'running' | 'recovering'
  /** Undefined while another member holds the lease. */
  lag(): number | undefined
  close(graceMs: number): Promise<void>
}

/** The holder's tenure. Its epoch guards every write: another one's has a higher epoch. */
interface Lease {
  readonly epoch: number
  readonly lost: AbortController
  /** What the group has done is before this. */
  next: number
  /** What comes next for the handler; after a throw the group's offset again. */
  position: number
  /** The end of what the handler has ever been given: nothing beyond it can be done. */
  delivered: number
}

interface LeaseRow {
  readonly next: number
  readonly owner: string | null
  readonly epoch: number
  readonly beat: number
}

/** A holder is dead after so long without a beat, which it raises every second. */
const SILENCE_MS = 4000
const LOOK_MS = 200
const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 2000
/** A handler whose signal has aborted may still finish within this time; then the member leaves without it. */
const LAST_WORDS_MS = 1000

export function startMember(options: {
  file: EmbeddedFile
  group: Group
  topic: Topic
  handle: BatchHandler
  deps: Pick<Deps, 'monotonicMs'>
  log: Logger | undefined
}): Member {
  const { file, group, topic, handle, log } = options
  const { db } = file
  const owner = Bun.randomUUIDv7()
  const selectLease = db.prepare<LeaseRow, [Group, Topic]>(
    'SELECT next, owner, epoch, beat FROM consumer WHERE "group" = ? AND topic = ?',
  )
  const takeLease = db.prepare<Pick<LeaseRow, 'epoch' | 'next'>, [string, Group, Topic, number, number]>(
    `UPDATE consumer SET owner = ?, epoch = epoch + 1, beat = beat + 1
     WHERE "group" = ? AND topic = ? AND epoch = ? AND (owner IS NULL OR beat = ?) RETURNING epoch, next`,
  )
  const keepLease = db.prepare<null, [number, Group, Topic, number]>(
    'UPDATE consumer SET beat = beat + 1, next = max(next, ?) WHERE "group" = ? AND topic = ? AND epoch = ?',
  )
  const leaveLease = db.prepare<null, [number, Group, Topic, number]>(
    `UPDATE consumer SET owner = NULL, epoch = epoch + 1, next = max(next, ?)
     WHERE "group" = ? AND topic = ? AND epoch = ?`,
  )
  const messages = file.messages(topic)

  const closing = new AbortController()
  const joined = Promise.withResolvers<void>()
  const isSilent = silence(options.deps.monotonicMs)
  let lease: Lease | undefined
  let failures = 0
  let keepQueued = false
  let keepFailed = false
  let resume: (() => void) | undefined

  const wake = () => resume?.()
  const detach = file.attach({
    topic,
    wake,
    beat: () => {
      if (lease && !lease.lost.signal.aborted) void keepLazily(lease)
    },
  })
  const done = run().finally(joined.resolve)

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      try {
        if (lease?.lost.signal.aborted) lease = undefined
        lease ??= await take()
        joined.resolve()
        if (closing.signal.aborted) return
        const delivered = lease && (await deliver(lease))
        failures = 0
        if (!delivered) await news()
      } catch (error) {
        if (lease) lease.position = lease.next
        if (lease?.lost.signal.aborted || closing.signal.aborted) continue
        const pauseMs = Math.min(FIRST_PAUSE_MS * 2 ** failures, LONGEST_PAUSE_MS)
        failures++
        joined.resolve()
        log?.error({ err: error, group, topic, pauseMs }, "trouble: it goes on from the group's offset after a pause")
        await sleep(pauseMs, undefined, { signal: closing.signal }).catch(() => {})
      }
    }
  }

  /** Resolves on news about the topic and about the lease. Who stands by looks for a dead holder by the clock, too. */
  function news(): Promise<void> {
    return new Promise((resolve) => {
      if (closing.signal.aborted || lease?.lost.signal.aborted) return resolve()
      const timer = lease ? undefined : setTimeout(wake, LOOK_MS)
      resume = () => {
        resume = undefined
        clearTimeout(timer)
        resolve()
      }
    })
  }

  async function take(): Promise<Lease | undefined> {
    const row = selectLease.get(group, topic)
    if (!row || (row.owner !== null && !isSilent(`${row.epoch} ${row.beat}`))) return undefined
    const taken = await file.write(() => takeLease.get(owner, group, topic, row.epoch, row.beat))
    if (!taken) return undefined
    if (row.owner !== null) log?.warn({ group, topic }, 'took over from a member that fell silent')
    const { epoch, next } = taken
    return { epoch, lost: new AbortController(), next, position: next, delivered: next }
  }

  /** Hands the next batch over. False if there is none. */
  async function deliver(held: Lease): Promise<boolean> {
    const { signal } = held.lost
    const batch = read(held)
    const last = batch.at(-1)
    if (!last) return signal.aborted
    const end = last.offset + 1
    held.delivered = Math.max(held.delivered, end)
    const result = await handle({
      topic,
      partition: PARTITION,
      messages: batch,
      signal,
      async commit(next) {
        if (signal.aborted) return
        advance(held, next)
        await keep(held, false)
      },
    })
    if (signal.aborted) return true
    held.position = Math.max(held.position, end)
    advance(held, result ? result.heldFrom : end)
    void keepLazily(held)
    return true
  }

  function read(held: Lease): Delivered[] {
    if (selectLease.get(group, topic)?.epoch === held.epoch) return messages.from(held.position)
    lose(held)
    return []
  }

  function advance(held: Lease, next: number): void {
    if (!Number.isSafeInteger(next) || next > held.delivered)
      throw new RangeError(`The offset ${next} is beyond what was delivered, which ends at ${held.delivered}.`)
    held.next = Math.max(held.next, next)
    held.position = Math.max(held.position, held.next)
  }

  /** Raises the beat and moves the group's offset. */
  async function keep(held: Lease, lazily: boolean): Promise<void> {
    const run = () => {
      if (lazily) keepQueued = false
      return keepLease.run(held.next, group, topic, held.epoch).changes
    }
    if ((await file.write(run, { lazily })) === 0) lose(held)
  }

  /** The same where nobody waits for it: trouble shows in `state`, and the next beat tries again. */
  async function keepLazily(held: Lease): Promise<void> {
    if (keepQueued) return
    keepQueued = true
    try {
      await keep(held, true)
      keepFailed = false
    } catch (error) {
      keepQueued = false
      keepFailed = true
      log?.warn({ err: error, group, topic }, 'the offset could not be written yet')
    }
  }

  function lose(held: Lease): void {
    if (held.lost.signal.aborted) return
    log?.warn({ group, topic }, 'lost the lease to another member')
    held.lost.abort()
    wake()
  }

  async function leave(held: Lease): Promise<void> {
    try {
      await file.write(() => {
        leaveLease.run(held.next, group, topic, held.epoch)
        file.changed(topic)
      })
    } catch (error) {
      log?.warn({ err: error, group, topic }, 'could not leave in order; others take over after a silence')
    }
  }

  return {
    joined: joined.promise,
    state: () => (failures > 0 || keepFailed ? 'recovering' : 'running'),
    lag() {
      if (!lease || lease.lost.signal.aborted) return undefined
      return Math.max(0, messages.end() - lease.next)
    },
    async close(graceMs) {
      closing.abort()
      wake()
      if (!(await endsWithin(done, graceMs))) {
        lease?.lost.abort()
        if (!(await endsWithin(done, LAST_WORDS_MS)))
          log?.warn({ group, topic }, 'left a handler that still runs; its batch will be delivered again')
      }
      detach()
      if (!lease) return
      await leave(lease)
      lease.lost.abort()
    },
  }
}

/**
 * Tells of a mark, each time that it is looked at, whether it has stood still for so long that its holder is dead: by
 * this process's own clock, and leaving out the time in which this process itself slept and could not look.
 */
export function silence(monotonicMs: () => number): (mark: string) => boolean {
  let seen: string | undefined
  let seenAtMs = 0
  let silentMs = 0
  return (mark) => {
    const nowMs = monotonicMs()
    silentMs = mark === seen ? silentMs + Math.min(nowMs - seenAtMs, 2 * LOOK_MS) : 0
    seen = mark
    seenAtMs = nowMs
    return silentMs >= SILENCE_MS
  }
}

async function endsWithin(work: Promise<void>, ms: number): Promise<boolean> {
  const timeout = new AbortController()
  const ended = work.then(() => true)
  const late = sleep(ms, false, { signal: timeout.signal }).catch(() => false)
  return Promise.race([ended, late]).finally(() => timeout.abort())
}
