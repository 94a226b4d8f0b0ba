import { type Outgoing, type RecordPosition, sizeBytes } from '../../messages/message.ts'
import { topicSettings, topics } from '../../messages/topics.ts'
import { type Clock, systemClock } from '../../service/clock.ts'
import { within } from '../../service/deadline.ts'
import { createLog, type Logger } from '../../service/log.ts'
import { type Broker, refuseTooLarge, type Subscription } from '../broker.ts'
import { type EmbeddedFile, openFile } from './file.ts'
import { startMember } from './member.ts'
import { newRow, PARTITION } from './messages.ts'

const PING_LIMIT_MS = 3000
const GRACE_MS = 5000
/** About what a small message takes in memory besides its bytes. */
const OVERHEAD_BYTES = 500
const DELETE_EVERY_MS = 60_000
const MAX_BYTES = 8 * 1024 ** 3

/**
 * A broker in one SQLite file, for the processes of one machine: nothing to install, as durable as the disk.
 *
 * - Each topic has one partition. One member of a group works on it while the others stand by. One of them takes over at
 *   once when it closes, and within 5 s when it dies.
 * - What callers in one process publish at the same time is one transaction. Members in the same process get it at once,
 *   others within 10 ms.
 * - A message is kept for its topic's `retentionMs`, and longer until every group that ever read the topic has committed
 *   it. A group that stays away keeps what it has not read.
 * - The file holds at most `maxBytes`, 8 GiB. From half of it on, a message goes as soon as every group has committed it.
 *   When it is full, new work is refused: requests, and events without anything else. Results and dead letters are still
 *   taken, since without them no group could catch up.
 *
 * @throws Error where the file cannot be opened, or is not a broker's
 */
export function openEmbedded(options: {
  readonly path: string
  readonly deps?: Clock
  readonly log?: Logger
  readonly maxBytes?: number
}): Broker {
  const { path, deps = systemClock, log = createLog('broker', 'silent'), maxBytes = MAX_BYTES } = options
  const file = openFile(path)
  const enter = file.db.prepare(
    'INSERT INTO consumer ("group", topic, next, epoch, beat) VALUES (?, ?, ?, 0, 0) ON CONFLICT DO NOTHING',
  )
  const subscriptions = new Set<Subscription>()
  const publishing = new Set<Promise<unknown>>()
  const closing = new AbortController()
  let deleting: Promise<void> | undefined
  const deletion = setInterval(() => {
    deleting = deleteOld(file, deps.now(), maxBytes, closing.signal).catch((error: unknown) =>
      log.warn({ err: error }, 'old messages could not be deleted'),
    )
  }, DELETE_EVERY_MS)
  let closed: Promise<void> | undefined
  let isDrained = false

  function refuseIf(isOver: boolean): void {
    if (isOver) throw new Error('The broker has been closed.')
  }

  async function close(): Promise<void> {
    clearInterval(deletion)
    closing.abort()
    await Promise.all([deleting, ...Array.from(subscriptions, ({ close }) => close())])
    // Not before: a handler that may finish may publish.
    isDrained = true
    await Promise.allSettled(publishing)
    file.release()
  }

  return {
    async publish(messages) {
      refuseIf(isDrained)
      for (const message of messages) refuseTooLarge(message)
      if (messages.length === 0) return []
      if (isNewWork(messages) && file.usedBytes() >= maxBytes)
        throw new Error("The broker's file is full: a group does not read its messages, or reads them too slowly.")
      const published = append(file, messages, deps.now())
      publishing.add(published)
      return published.finally(() => publishing.delete(published))
    },

    async subscribe(group, to, handle) {
      refuseIf(closing.signal.aborted)
      await file.write(() => {
        for (const topic of to) enter.run(group, topic, file.messages(topic).oldest())
      })
      refuseIf(closing.signal.aborted)
      const members = to.map((topic) => startMember({ file, group, topic, handle, deps, log }))
      const ended = Promise.withResolvers<void>()
      let leaving: Promise<unknown> | undefined
      const subscription: Subscription = {
        state: () => (members.some(({ state }) => state() === 'recovering') ? 'recovering' : 'running'),
        ended: ended.promise,
        lag: () => members.flatMap(({ lag }) => lag()),
        async close(graceMs = GRACE_MS) {
          leaving ??= Promise.all(members.map((member) => member.close(graceMs)))
          await leaving
          subscriptions.delete(subscription)
          ended.resolve()
        },
      }
      subscriptions.add(subscription)
      await Promise.all(members.map(({ joined }) => joined))
      return subscription
    },

    async ping() {
      refuseIf(closing.signal.aborted)
      await within(
        file.write(() => {}),
        PING_LIMIT_MS,
        "Locking the broker's file",
      )
    },

    close() {
      closed ??= close()
      return closed
    },
  }
}

/** Results, and dead letters with their event, follow from messages that are here. */
function isNewWork(messages: readonly Outgoing[]): boolean {
  return (
    messages.some(({ topic }) => topic === topics.requests) || messages.every(({ topic }) => topic === topics.events)
  )
}

async function append(
  file: EmbeddedFile,
  messages: readonly Outgoing[],
  nowMs: number,
): Promise<readonly RecordPosition[]> {
  const bytes = messages.reduce((sum, message) => sum + sizeBytes(message) + OVERHEAD_BYTES, 0)
  const rows = messages.map((message, index) => ({ topic: message.topic, index, ...newRow(message) }))
  const byTopic = Map.groupBy(rows, ({ topic }) => topic)
  const write = () => {
    const positions: RecordPosition[] = []
    for (const [topic, ofTopic] of byTopic) {
      const first = file.messages(topic).append(ofTopic, nowMs)
      for (const [count, { index }] of ofTopic.entries())
        positions[index] = { topic, partition: PARTITION, offset: first + count }
      file.changed(topic)
    }
    return positions
  }
  return file.write(write, { bytes })
}

/**
 * Deletes, in small transactions, what every group that ever read its topic has committed: what is older than the topic's
 * retention or, while the file holds more than half of `maxBytes`, whatever its age.
 */
export async function deleteOld(
  file: EmbeddedFile,
  nowMs: number,
  maxBytes = MAX_BYTES,
  signal?: AbortSignal,
): Promise<void> {
  for (const topic of Object.values(topics)) {
    const old = { beforeMs: nowMs - topicSettings[topic].retentionMs, unread: true }
    const any = { beforeMs: Number.POSITIVE_INFINITY, unread: false }
    const deleteSome = () => file.messages(topic).deleteSome(file.usedBytes() > maxBytes / 2 ? any : old)
    while (!signal?.aborted && (await file.write(deleteSome)));
  }
}
