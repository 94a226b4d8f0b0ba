import { setTimeout as sleep } from 'node:timers/promises'
import { type Outgoing, type RecordPosition, sizeBytes } from '../../messages/message.ts'
import { type Topic, topicSettings, topics } from '../../messages/topics.ts'
import { type Deps, systemDeps } from '../../service/deps.ts'
import type { Logger } from '../../service/log.ts'
import { type Broker, MessageTooLarge, type Subscription } from '../broker.ts'
import { type EmbeddedFile, locked, openFile } from './file.ts'
import { startMember } from './member.ts'
import { newRow, PARTITION } from './messages.ts'

const PING_LIMIT_MS = 3000
const GRACE_MS = 5000
/** About what a small message takes while it waits to be written, beyond its own bytes. */
const OVERHEAD_BYTES = 500
const DELETE_EVERY_MS = 60_000
const MAX_BYTES = 8 * 1024 ** 3

/**
 * A broker in one SQLite file, for the processes of one machine: nothing to install, as durable as the disk.
 *
 * Each topic has one partition, and each of a group's topics one member that works on it while the others stand by: they
 * follow at once when it closes, and within 5 s when it dies. What several callers of one process publish at the same
 * time is one transaction, synced before they resolve. Members in the same process hear of it at once, others within
 * 10 ms.
 *
 * A message is kept for its topic's `retentionMs`, and longer until every group that ever read the topic is past it: a group
 * that stays away keeps what it has not read. What bounds the file is `maxBytes`, 8 GiB. Beyond half of it a message goes
 * as soon as every group that ever read its topic is past it. At all of it no new work is taken: requests, and events of
 * their own, are refused until a group has caught up. What follows from messages that are here, results and dead letters,
 * still enters, or nothing would get done any more.
 *
 * @throws where the file cannot be opened, or is no broker's.
 */
export function openEmbedded(options: {
  readonly path: string
  readonly deps?: Pick<Deps, 'now' | 'monotonicMs'>
  readonly log?: Logger
  readonly maxBytes?: number
}): Broker {
  const { path, deps = systemDeps, log, maxBytes = MAX_BYTES } = options
  const file = openFile(path)
  const subscriptions = new Set<Subscription>()
  const publishing = new Set<Promise<unknown>>()
  const deleting = setInterval(() => {
    deleteOld(file, deps.now(), maxBytes).catch((error: unknown) =>
      log?.warn({ err: error }, 'old messages could not be deleted'),
    )
  }, DELETE_EVERY_MS)
  let closed: Promise<void> | undefined
  let drained = false

  function refuseIf(isClosed: boolean): void {
    if (isClosed) throw new Error('The broker has been closed.')
  }

  async function close(): Promise<void> {
    clearInterval(deleting)
    await Promise.all(Array.from(subscriptions, (subscription) => subscription.close()))
    // Until here, since a handler that is let finish may publish.
    drained = true
    await Promise.allSettled(publishing)
    file.release()
  }

  return {
    async publish(messages) {
      refuseIf(drained)
      for (const message of messages) {
        const [bytes, limitBytes] = [sizeBytes(message), topicSettings[message.topic].maxMessageBytes]
        if (bytes > limitBytes) throw new MessageTooLarge(message.topic, bytes, limitBytes)
      }
      if (messages.length === 0) return []
      if (isNewWork(messages) && file.usedBytes() >= maxBytes)
        throw new Error("The broker's file is full: a group has not read what it holds, or there is more than it can.")
      const published = append(file, messages, deps.now())
      publishing.add(published)
      return published.finally(() => publishing.delete(published))
    },

    async subscribe(group, to, handle) {
      refuseIf(closed !== undefined)
      const enter = file.db.prepare(
        'INSERT INTO consumer ("group", topic, next, epoch, beat) VALUES (?, ?, ?, 0, 0) ON CONFLICT DO NOTHING',
      )
      await file.write(() => {
        for (const topic of to) enter.run(group, topic, file.messages(topic).oldest())
      })
      refuseIf(closed !== undefined)
      const members = to.map((topic) => ({
        topic,
        member: startMember({ file, group, topic, handle, deps, log }),
      }))
      const ended = Promise.withResolvers<void>()
      let closing: Promise<unknown> | undefined
      const subscription: Subscription = {
        state: () => (members.some(({ member }) => member.state() === 'recovering') ? 'recovering' : 'running'),
        ended: ended.promise,
        lag: () =>
          members.flatMap(({ topic, member }) => {
            const lag = member.lag()
            return lag === undefined ? [] : [{ topic, partition: PARTITION, lag }]
          }),
        async close(graceMs = GRACE_MS) {
          closing ??= Promise.all(members.map(({ member }) => member.close(graceMs)))
          await closing
          subscriptions.delete(subscription)
          ended.resolve()
        },
      }
      subscriptions.add(subscription)
      await Promise.all(members.map(({ member }) => member.joined))
      return subscription
    },

    async ping() {
      refuseIf(closed !== undefined)
      const timeout = new AbortController()
      const answered = file.write(() => {})
      const late = sleep(PING_LIMIT_MS, undefined, { signal: timeout.signal }).then(() => {
        throw locked()
      })
      await Promise.race([answered, late]).finally(() => timeout.abort())
    },

    close() {
      closed ??= close()
      return closed
    },
  }
}

/** Results, and dead letters with their event, follow from what the broker has delivered. */
function isNewWork(messages: readonly Outgoing[]): boolean {
  const isOn = (topic: Topic) => (message: Outgoing) => message.topic === topic
  return messages.some(isOn(topics.requests)) || messages.every(isOn(topics.events))
}

/** Appends within the next transaction; what one process publishes keeps the order of the calls. */
async function append(
  file: EmbeddedFile,
  messages: readonly Outgoing[],
  nowMs: number,
): Promise<readonly RecordPosition[]> {
  const bytes = messages.reduce((sum, message) => sum + sizeBytes(message) + OVERHEAD_BYTES, 0)
  const rows = messages.map((message, index) => ({ topic: message.topic, index, ...newRow(message) }))
  const byTopic = Map.groupBy(rows, ({ topic }) => topic)
  return file.write(
    () => {
      const places: RecordPosition[] = []
      for (const [topic, ofTopic] of byTopic) {
        const first = file.messages(topic).append(ofTopic, nowMs)
        for (const [count, { index }] of ofTopic.entries())
          places[index] = { topic, partition: PARTITION, offset: first + count }
        file.changed(topic)
      }
      return places
    },
    { bytes },
  )
}

/**
 * Deletes, in small transactions, what every group that ever read its topic has done, if it is older than the topic's
 * retention, or, while the file holds more than half of `maxBytes`, whatever its age.
 */
export async function deleteOld(file: EmbeddedFile, nowMs: number, maxBytes = MAX_BYTES): Promise<void> {
  for (const topic of Object.values(topics)) {
    const old = { beforeMs: nowMs - topicSettings[topic].retentionMs, unread: true }
    const any = { beforeMs: Number.POSITIVE_INFINITY, unread: false }
    const deleteSome = () => file.messages(topic).deleteSome(file.usedBytes() > maxBytes / 2 ? any : old)
    while (await file.write(deleteSome));
  }
}
