import type { Admin, ITopicMetadata } from 'kafkajs'
import { type Topic, topicSettings, topics } from '../../messages/topics.ts'
import { pause } from '../../service/backoff.ts'
import { within } from '../../service/deadline.ts'
import type { Logger } from '../../service/log.ts'
import type { Connect } from './client.ts'
import { protocolError } from './errors.ts'

/** A topic has another number of partitions than messages are keyed for. Only an operator can help. */
export class TopicMismatch extends Error {
  override name = 'TopicMismatch'
  constructor(name: string, found: number, needed: number) {
    super(
      `The topic ${name} has ${found} partitions; ${needed} are needed. The number decides the partition of a key, ` +
        'so it is fixed at creation: let the consumers finish, delete it, and start again, which creates it anew.',
    )
  }
}

/** Kafka's limit on a batch includes the framing of its records and headers. A topic's `maxMessageBytes` does not. */
export const FRAMING_BYTES = 16 * 1024

const ENSURE_TIMEOUT_MS = 8000
const CREATE_TIMEOUT_MS = 5000
const PROPAGATION_ATTEMPTS = 20
const PROPAGATION_PAUSE_MS = 100

export type Topics = ReturnType<typeof createTopics>

export function createTopics(options: {
  readonly connect: Connect
  readonly namespace: string | undefined
  readonly log: Logger
}) {
  const { connect, namespace, log } = options
  const nameOf = (topic: Topic) => (namespace === undefined ? topic : `${namespace}.${topic}`)
  const needed = new Map(Object.values(topics).map((topic) => [nameOf(topic), topicSettings[topic]]))
  const names = [...needed.keys()]
  let ensured: Promise<void> | undefined

  async function ensure(): Promise<void> {
    const client = connect()
    try {
      await within(findOrCreate(client.kafka.admin()), ENSURE_TIMEOUT_MS, 'Looking for the topics')
    } finally {
      client.kill()
    }
  }

  async function findOrCreate(admin: Admin): Promise<void> {
    await admin.connect()
    let found = await find(admin)
    if (!found) {
      await create(admin)
      found = await findCreated(admin)
    }
    for (const { name, partitions } of found) {
      const count = needed.get(name)?.partitions
      if (count !== undefined && partitions.length !== count) throw new TopicMismatch(name, partitions.length, count)
    }
  }

  /** Undefined where the broker does not know all topics. */
  async function find(admin: Admin): Promise<readonly ITopicMetadata[] | undefined> {
    try {
      return (await admin.fetchTopicMetadata({ topics: names })).topics
    } catch (error) {
      const isUnknown = ['UNKNOWN_TOPIC_OR_PARTITION', 'LEADER_NOT_AVAILABLE'].includes(protocolError(error) ?? '')
      // kafkajs throws a TypeError where every broker answers with an error.
      if (isUnknown || error instanceof TypeError) return undefined
      throw error
    }
  }

  /** Creates the topics that do not exist; several processes may do so at once. */
  async function create(admin: Admin): Promise<void> {
    const { brokers } = await admin.describeCluster()
    const replicated = brokers.length >= 3
    const created = await admin.createTopics({
      timeout: CREATE_TIMEOUT_MS,
      waitForLeaders: false,
      topics: [...needed].map(([topic, { partitions, retentionMs, maxMessageBytes }]) => {
        const settings = {
          'retention.ms': retentionMs,
          'max.message.bytes': maxMessageBytes + FRAMING_BYTES,
          // Kafka unpacks what comes packed, and then the limit counts. Redpanda may take the setting and ignore it.
          'compression.type': 'uncompressed',
          // Two of three replicas acknowledge: what `publish` resolved survives the loss of any one broker.
          ...(replicated && { 'min.insync.replicas': 2 }),
        }
        return {
          topic,
          numPartitions: partitions,
          replicationFactor: replicated ? 3 : 1,
          configEntries: Object.entries(settings).map(([name, value]) => ({ name, value: String(value) })),
        }
      }),
    })
    if (created) log.info({ topics: names, replicated }, 'created the topics')
  }

  /** A new topic takes a moment to reach every broker. */
  async function findCreated(admin: Admin): Promise<readonly ITopicMetadata[]> {
    for (let attempt = 0; attempt < PROPAGATION_ATTEMPTS; attempt++) {
      const found = await find(admin)
      if (found) return found
      await pause(PROPAGATION_PAUSE_MS)
    }
    throw new Error('The topics were created, but the broker still does not know them.')
  }

  return {
    /** The topic's name on the broker. */
    nameOf,
    /** Creates missing topics. Asks the broker once; later calls get the same answer. @throws TopicMismatch */
    ensure(): Promise<void> {
      ensured ??= ensure().catch((error: unknown) => {
        ensured = undefined
        throw error
      })
      return ensured
    },
    /** A topic may have been deleted: the next `ensure` asks again. */
    forget(): void {
      ensured = undefined
    },
  }
}
