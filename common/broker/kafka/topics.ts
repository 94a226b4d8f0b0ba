import type { Admin, ITopicMetadata } from 'kafkajs'
import { type Topic, topicSettings, topics } from '../../messages/topics.ts'
import { within } from '../../service/deadline.ts'
import type { Logger } from '../../service/log.ts'
import type { Connect } from './client.ts'
import { protocolError } from './errors.ts'

/** A topic that exists with another number of partitions than messages are keyed for. Only an operator can help. */
export class TopicMismatch extends Error {
  override name = 'TopicMismatch'
  constructor(name: string, found: number, needed: number) {
    super(
      `The topic ${name} has ${found} partitions; ${needed} are needed. The number decides which partition a key goes to, ` +
        'so it is fixed at creation: let the consumers finish what is on it, delete it, and start again, which creates it anew.',
    )
  }
}

/** Beyond what a topic's limit counts: Kafka's is on the batch, with the framing of the batch, its record and headers. */
export const FRAMING_BYTES = 16 * 1024

const ENSURE_TIMEOUT_MS = 8000
const CREATE_TIMEOUT_MS = 5000
/** A topic that was just created may be unknown to the next broker that is asked. */
const PROPAGATION_ATTEMPTS = 20
const PROPAGATION_PAUSE_MS = 100

export interface Topics {
  /** The topic's name on the broker. */
  nameOf(topic: Topic): string
  /** Resolves once every topic exists as it is needed, creating what does not. @throws TopicMismatch */
  ensure(): Promise<void>
  /** They may be gone: `ensure` looks again. */
  forget(): void
}

export function createTopics(options: {
  readonly connect: Connect
  readonly namespace: string | undefined
  readonly log: Logger
}): Topics {
  const { connect, namespace, log } = options
  const nameOf = (topic: Topic) => (namespace === undefined ? topic : `${namespace}.${topic}`)
  let ensured: Promise<void> | undefined

  async function look(): Promise<void> {
    const client = connect()
    try {
      const admin = client.kafka.admin()
      await within(ensure(admin), ENSURE_TIMEOUT_MS, 'Looking for the topics')
    } finally {
      client.kill()
    }
  }

  async function ensure(admin: Admin): Promise<void> {
    await admin.connect()
    const { brokers } = await admin.describeCluster()
    const existing = new Set(await admin.listTopics())
    const missing = Object.values(topics).filter((topic) => !existing.has(nameOf(topic)))
    if (missing.length > 0) await create(admin, missing, brokers.length >= 3)
    for (const { name, partitions } of await describe(admin, Object.values(topics).map(nameOf))) {
      const topic = Object.values(topics).find((each) => nameOf(each) === name)
      if (!topic) continue
      const needed = topicSettings[topic].partitions
      if (partitions.length !== needed) throw new TopicMismatch(name, partitions.length, needed)
    }
  }

  async function create(admin: Admin, missing: readonly Topic[], replicated: boolean): Promise<void> {
    // False: another process was faster with one of them, which is as good.
    await admin.createTopics({
      timeout: CREATE_TIMEOUT_MS,
      waitForLeaders: false,
      topics: missing.map((topic) => {
        const { partitions, retentionMs, maxMessageBytes } = topicSettings[topic]
        const settings = {
          'retention.ms': retentionMs,
          'max.message.bytes': maxMessageBytes + FRAMING_BYTES,
          // With three replicas, acks of two: what publish resolved survives the loss of any one broker.
          ...(replicated ? { 'min.insync.replicas': 2 } : {}),
        }
        return {
          topic: nameOf(topic),
          numPartitions: partitions,
          replicationFactor: replicated ? 3 : 1,
          configEntries: Object.entries(settings).map(([name, value]) => ({ name, value: String(value) })),
        }
      }),
    })
    log.info({ topics: missing.map(nameOf), replicated }, 'created topics')
  }

  return {
    nameOf,
    ensure() {
      if (ensured) return ensured
      const looking = look()
      ensured = looking
      looking.catch(() => {
        if (ensured === looking) ensured = undefined
      })
      return looking
    },
    forget() {
      ensured = undefined
    },
  }
}

async function describe(admin: Admin, names: string[]): Promise<ITopicMetadata[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      return (await admin.fetchTopicMetadata({ topics: names })).topics
    } catch (error) {
      const passing = ['UNKNOWN_TOPIC_OR_PARTITION', 'LEADER_NOT_AVAILABLE'].includes(protocolError(error) ?? '')
      // kafkajs answers nothing at all where every broker failed to.
      if (attempt === PROPAGATION_ATTEMPTS || !(passing || error instanceof TypeError)) throw error
      await Bun.sleep(PROPAGATION_PAUSE_MS)
    }
  }
}
