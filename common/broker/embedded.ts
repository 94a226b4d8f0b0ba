import { setTimeout as sleep } from 'node:timers/promises'
import { type Topic, topicSettings, topics } from '../messages/topics.ts'
import { type Deps, systemDeps } from '../service/deps.ts'
import type { Logger } from '../service/log.ts'
import { type Broker, MessageTooLarge, type Outgoing, type Placed, type Subscription, sizeBytes } from './broker.ts'
import { type EmbeddedFile, openFile } from './embedded-file.ts'
import { encodeHeaders, PARTITION, startMember } from './embedded-member.ts'

const PING_LIMIT_MS = 3000
const GRACE_MS = 5000
const DELETE_EVERY_MS = 60_000
const DELETE_AT_ONCE = 100

/**
 * A broker in one SQLite file, for the processes of one machine: nothing to install, as durable as the disk.
 *
 * Each topic has one partition, and each of a group's topics one member that works on it while the others stand by: they
 * follow at once when it closes, and within 5 s when it dies. What several callers of one process publish at the same
 * time is one transaction, synced before they resolve. Members in the same process hear of it at once, others within
 * 10 ms. A message is kept for its topic's `retentionMs`, and longer until every group that ever read the topic is past it.
 *
 * @throws where the file cannot be opened, or is no broker's.
 */
export function openEmbedded(options: {
  readonly path: string
  readonly deps?: Pick<Deps, 'now' | 'monotonicMs'>
  readonly log?: Logger
}): Broker {
  const { path, deps = systemDeps, log } = options
  const file = openFile(path)
  const subscriptions = new Set<Subscription>()
  const publishing = new Set<Promise<unknown>>()
  const deleting = setInterval(() => {
    deleteOld(file, deps.now()).catch((error: unknown) =>
      log?.warn({ err: error }, 'old messages could not be deleted'),
    )
  }, DELETE_EVERY_MS)
  let closed: Promise<void> | undefined

  function checkOpen(): void {
    if (closed) throw new Error('The broker has been closed.')
  }

  async function close(): Promise<void> {
    clearInterval(deleting)
    await Promise.all(Array.from(subscriptions, (subscription) => subscription.close()))
    await Promise.allSettled(publishing)
    file.release()
  }

  return {
    async publish(messages) {
      checkOpen()
      for (const message of messages) {
        const [bytes, limitBytes] = [sizeBytes(message), topicSettings[message.topic].maxMessageBytes]
        if (bytes > limitBytes) throw new MessageTooLarge(message.topic, bytes, limitBytes)
      }
      if (messages.length === 0) return []
      const published = append(file, messages, deps.now())
      publishing.add(published)
      return published.finally(() => publishing.delete(published))
    },

    async subscribe(group, to, handle) {
      checkOpen()
      const enter = file.db.query(
        'INSERT INTO consumer ("group", topic, next, epoch, beat) VALUES (?, ?, ?, 0, 0) ON CONFLICT DO NOTHING',
      )
      await file.write(() => {
        for (const topic of to) enter.run(group, topic, oldest(file, topic))
      })
      checkOpen()
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
      checkOpen()
      const timeout = new AbortController()
      const answered = file.write(() => {})
      const late = sleep(PING_LIMIT_MS, undefined, { signal: timeout.signal }).then(() => {
        throw new Error("Another process holds the broker's file locked.")
      })
      await Promise.race([answered, late]).finally(() => timeout.abort())
    },

    close() {
      closed ??= close()
      return closed
    },
  }
}

/** Appends within the next transaction; what one process publishes keeps the order of the calls. */
async function append(file: EmbeddedFile, messages: readonly Outgoing[], nowMs: number): Promise<readonly Placed[]> {
  const counts = new Map<Topic, number>()
  let bytes = 0
  const rows = messages.map((message) => {
    const { topic, key, value } = message
    bytes += sizeBytes(message)
    counts.set(topic, (counts.get(topic) ?? 0) + 1)
    return { topic, key: Buffer.from(key), value, headers: encodeHeaders(message.headers) }
  })
  return file.write(
    () => {
      const nexts = new Map<Topic, number>()
      for (const [topic, count] of counts) {
        nexts.set(topic, reserve(file, topic, count))
        file.changed(topic)
      }
      return rows.map(({ topic, key, value, headers }) => {
        const offset = nexts.get(topic) ?? 0
        nexts.set(topic, offset + 1)
        file.db.query(`INSERT INTO "${topic}" VALUES (?, ?, ?, ?, ?)`).run(offset, nowMs, key, headers, value)
        return { topic, partition: PARTITION, offset }
      })
    },
    { bytes },
  )
}

/** The first of `count` offsets that nobody else gets, and nobody ever got, whatever has been deleted. */
function reserve(file: EmbeddedFile, topic: Topic, count: number): number {
  const reserved = file.db
    .query<{ first: number }, [number, Topic, number]>(
      'UPDATE topic SET next = next + ? WHERE name = ? RETURNING next - ? AS first',
    )
    .get(count, topic, count)
  if (!reserved) throw new Error(`The broker's file has no topic ${topic}.`)
  return reserved.first
}

/** The offset of the oldest message, or of the next one where there is none. */
function oldest(file: EmbeddedFile, topic: Topic): number {
  const row = file.db
    .query<{ oldest: number }, [Topic]>(
      `SELECT coalesce((SELECT min(offset) FROM "${topic}"), next) AS oldest FROM topic WHERE name = ?`,
    )
    .get(topic)
  if (!row) throw new Error(`The broker's file has no topic ${topic}.`)
  return row.oldest
}

/**
 * Deletes what is older than its topic's retention and behind every group that ever read the topic, from the oldest up
 * to the first that must stay, in small transactions.
 */
export async function deleteOld(file: EmbeddedFile, nowMs: number): Promise<void> {
  for (const topic of Object.values(topics)) {
    const beforeMs = nowMs - topicSettings[topic].retentionMs
    while ((await file.write(() => deleteSome(file, topic, beforeMs))) === DELETE_AT_ONCE);
  }
}

function deleteSome(file: EmbeddedFile, topic: Topic, beforeMs: number): number {
  const done = file.db
    .query<{ offset: number; timestamp: number }, [Topic]>(
      `SELECT offset, timestamp FROM "${topic}"
       WHERE offset < coalesce((SELECT min(next) FROM consumer WHERE topic = ?), ${Number.MAX_SAFE_INTEGER})
       ORDER BY offset LIMIT ${DELETE_AT_ONCE}`,
    )
    .all(topic)
  // Clocks of several processes wrote the times, so they need not ascend: the first that must stay is the end.
  const kept = done.findIndex(({ timestamp }) => timestamp >= beforeMs)
  const old = kept === -1 ? done : done.slice(0, kept)
  const last = old.at(-1)
  if (last) file.db.query(`DELETE FROM "${topic}" WHERE offset <= ?`).run(last.offset)
  return old.length
}
