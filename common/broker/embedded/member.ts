import type { Group, Topic } from '../../messages/topics.ts'
import { backoff, pause } from '../../service/backoff.ts'
import type { Clock } from '../../service/clock.ts'
import { within } from '../../service/deadline.ts'
import type { Logger } from '../../service/log.ts'
import type { BatchHandler, Subscription } from '../broker.ts'
import type { EmbeddedFile } from './file.ts'
import { LOOK_MS, openLease } from './lease.ts'
import { PARTITION } from './messages.ts'

const BEAT_MS = 1000
/** A handler whose signal has aborted may still finish within this time. Then the member leaves without it. */
const ABORT_MS = 1000

/** A group's member for one topic. It stands by until it holds the lease, and then delivers one batch after the other. */
export interface Member {
  /** Resolves when it holds the lease or stands by. */
  readonly joined: Promise<void>
  state(): 'running' | 'recovering'
  /** Nothing while another member holds the lease. */
  lag: Subscription['lag']
  close(graceMs: number): Promise<void>
}

/** The state of a member while it holds the lease. */
interface Tenure {
  readonly epoch: number
  readonly lost: AbortController
  /** The committed offset. */
  committed: number
  /** The offset that is delivered next. After a throw it is the committed offset again. */
  position: number
}

export function startMember(options: {
  file: EmbeddedFile
  group: Group
  topic: Topic
  handle: BatchHandler
  deps: Clock
  log: Logger
}): Member {
  const { file, group, topic, handle } = options
  const log = options.log.child({ group, topic })
  const lease = openLease({ ...options, log })
  const messages = file.messages(topic)
  const closing = new AbortController()
  const joined = Promise.withResolvers<void>()
  const pauses = backoff({ firstMs: 100, longestMs: 2000 })
  let woken = Promise.withResolvers<void>()
  let tenure: Tenure | undefined
  let isFailing = false
  let cannotCommit = false
  let commitWaits = false

  const stopListening = file.listen(topic, () => woken.resolve())
  const beating = setInterval(() => tenure && void commitLazily(tenure), BEAT_MS)
  const done = run()

  async function run(): Promise<void> {
    while (!closing.signal.aborted) {
      // Made before the look, so that a wake during the look is not lost.
      woken = Promise.withResolvers()
      try {
        if (tenure?.lost.signal.aborted) tenure = undefined
        tenure ??= await take()
        joined.resolve()
        if (closing.signal.aborted) return
        const delivered = tenure && (await deliver(tenure))
        isFailing = false
        pauses.reset()
        if (!delivered) await Promise.race([woken.promise, ...(tenure ? [] : [pause(LOOK_MS, closing.signal)])])
      } catch (error) {
        joined.resolve()
        if (tenure) tenure.position = tenure.committed
        if (tenure?.lost.signal.aborted || closing.signal.aborted) continue
        isFailing = true
        log.error(
          { err: error, pauseMs: pauses.pauseMs },
          'delivery failed: everything from the committed offset is delivered again',
        )
        await pauses.pause(closing.signal)
      }
    }
  }

  async function take(): Promise<Tenure | undefined> {
    const taken = await lease.take()
    return taken && { ...taken, lost: new AbortController(), position: taken.committed }
  }

  /** False if there is no message to deliver. */
  async function deliver(held: Tenure): Promise<boolean> {
    const { signal } = held.lost
    if (!lease.isHeld(held.epoch)) lose(held)
    const batch = signal.aborted ? [] : messages.from(held.position)
    const last = batch.at(-1)
    if (!last) return signal.aborted
    const result = await handle({
      topic,
      partition: PARTITION,
      messages: batch,
      signal,
      async commit(next) {
        if (signal.aborted) return
        advance(held, next)
        await commit(held)
      },
    })
    if (signal.aborted) return true
    held.position = last.offset + 1
    advance(held, result ? result.heldFrom : held.position)
    void commitLazily(held)
    return true
  }

  function advance(held: Tenure, next: number): void {
    held.committed = Math.max(held.committed, next)
    held.position = Math.max(held.position, held.committed)
  }

  async function commit(held: Tenure, lazily = false): Promise<void> {
    const renew = () => {
      if (lazily) commitWaits = false
      return lease.renew(held.epoch, held.committed)
    }
    if (!(await file.write(renew, { lazily }))) lose(held)
  }

  /** A failure shows in `state`, and the next beat tries again. */
  async function commitLazily(held: Tenure): Promise<void> {
    if (commitWaits || held.lost.signal.aborted) return
    commitWaits = true
    try {
      await commit(held, true)
      cannotCommit = false
    } catch (error) {
      commitWaits = false
      cannotCommit = true
      log.warn({ err: error }, 'the offset could not be committed yet')
    }
  }

  function lose(held: Tenure): void {
    if (held.lost.signal.aborted) return
    log.warn('lost the lease to another member')
    held.lost.abort()
    woken.resolve()
  }

  /** Waits for the handler, aborts it after `graceMs`, and leaves it behind if it ignores that. */
  async function finish(graceMs: number): Promise<void> {
    await within(done, graceMs, 'The handler').catch(() => {
      tenure?.lost.abort()
      return within(done, ABORT_MS, 'The handler').catch((error: unknown) =>
        log.warn({ err: error }, 'left a handler that still runs: its batch will be delivered again'),
      )
    })
  }

  return {
    joined: joined.promise,
    state: () => (isFailing || cannotCommit ? 'recovering' : 'running'),
    lag() {
      if (!tenure || tenure.lost.signal.aborted) return []
      return [{ topic, partition: PARTITION, lag: Math.max(0, messages.end() - tenure.committed) }]
    },
    async close(graceMs) {
      closing.abort()
      woken.resolve()
      await finish(graceMs)
      clearInterval(beating)
      stopListening()
      if (!tenure) return
      const { epoch, committed, lost } = tenure
      await file
        .write(() => lease.release(epoch, committed))
        .catch((error: unknown) =>
          log.warn({ err: error }, 'the lease could not be released: others wait until it is silent'),
        )
      lost.abort()
    },
  }
}
