import { join } from 'node:path'
import { Kafka, logLevel } from 'kafkajs'
import { openEmbedded } from '../../common/broker/embedded/embedded.ts'
import { partitionOf } from '../../common/broker/kafka/partition-of.ts'
import type { Delivered, Header } from '../../common/messages/message.ts'
import { type Topic, topicSettings } from '../../common/messages/topics.ts'
import type { Environment } from '../../common/service/config.ts'
import { within } from '../../common/service/deadline.ts'

/** A message of a program that is none of the services. */
export interface Foreign {
  readonly topic: Topic
  readonly key: string | null
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
}

/** A Kafka client that uses nothing of ours. */
export function kafkaClient(brokerUrl: string): Kafka {
  const brokers = (brokerUrl.split('?')[0] ?? '').replace('kafka://', '').split(',')
  return new Kafka({ clientId: 'foreign', brokers, logLevel: logLevel.NOTHING, retry: { retries: 8 } })
}

/**
 * Publishes as another program does, to the broker that `BROKER_URL` names or to the file in `DATA_DIR`. Everything is
 * durable once it resolves. Keys and values that are null exist on Kafka alone.
 * @param beside the key in whose partition the messages go; each message's own by default
 */
export async function publishForeign(
  { BROKER_URL, DATA_DIR = '' }: Environment,
  messages: readonly Foreign[],
  beside?: string,
): Promise<void> {
  if (BROKER_URL === undefined) return publishToFile(join(DATA_DIR, 'broker.db'), messages)
  const producer = kafkaClient(BROKER_URL).producer({ allowAutoTopicCreation: false })
  await producer.connect()
  try {
    const topicMessages = messages.map(({ topic, key, value, headers }) => ({
      topic,
      messages: [
        {
          key,
          value: value && Buffer.from(value),
          headers: Object.fromEntries(headers.map(([name, bytes]) => [name, Buffer.from(bytes)])),
          partition: partitionOf(beside ?? key ?? '', topicSettings[topic].partitions),
        },
      ],
    }))
    await producer.sendBatch({ acks: -1, topicMessages })
  } finally {
    await producer.disconnect()
  }
}

async function publishToFile(path: string, messages: readonly Foreign[]): Promise<void> {
  const broker = openEmbedded({ path })
  const complete = messages.flatMap(({ key, value, ...rest }) =>
    key === null || value === null ? [] : [{ ...rest, key, value }],
  )
  await broker.publish(complete).finally(broker.close)
}

const READ_WITHIN_MS = 60_000

/** Reads topics from their beginning to their present end. Messages are in the order of partition and offset. */
export async function readTopics(
  client: Kafka,
  topics: readonly Topic[],
  groupId = `foreign-${Bun.randomUUIDv7()}`,
): Promise<Delivered[]> {
  /** The ends of the partitions that are not read to their end yet. */
  const ends = new Map<string, number>()
  const admin = client.admin()
  await admin.connect()
  try {
    for (const topic of topics)
      for (const { partition, low, high } of await admin.fetchTopicOffsets(topic))
        if (Number(high) > Number(low)) ends.set(`${topic}/${partition}`, Number(high))
  } finally {
    await admin.disconnect()
  }
  const messages: Delivered[] = []
  if (ends.size === 0) return messages
  const complete = Promise.withResolvers<void>()
  const consumer = client.consumer({ groupId, sessionTimeout: 10_000 })
  await consumer.connect()
  try {
    await consumer.subscribe({ topics: [...topics], fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      async eachBatch({ batch }) {
        const { partition } = batch
        const topic = topics.find((each) => each === batch.topic)
        if (topic === undefined) return
        for (const { offset, key, value, headers = {}, timestamp } of batch.messages)
          messages.push({
            topic,
            partition,
            offset: Number(offset),
            key,
            value,
            headers: Object.entries(headers).flatMap(([name, values]) =>
              [values].flat().flatMap((each): Header[] => (each === undefined ? [] : [[name, Buffer.from(each)]])),
            ),
            timestampMs: Number(timestamp),
          })
        const name = `${topic}/${partition}`
        if (Number(batch.lastOffset()) + 1 >= (ends.get(name) ?? 0)) ends.delete(name)
        if (ends.size === 0) complete.resolve()
      },
    })
    await within(complete.promise, READ_WITHIN_MS, `Reading ${topics.join(', ')}`)
  } finally {
    await consumer.disconnect()
  }
  return messages.sort((a, b) => a.partition - b.partition || a.offset - b.offset)
}
