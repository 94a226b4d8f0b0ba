import { join } from 'node:path'
import { Kafka, logLevel } from 'kafkajs'
import { openEmbedded } from '../../common/broker/embedded/embedded.ts'
import { partitionOf } from '../../common/broker/kafka/partition-of.ts'
import type { Header } from '../../common/messages/message.ts'
import { type Topic, topicSettings } from '../../common/messages/topics.ts'
import type { Parts } from './system.ts'

/** A message that no service of ours wrote. */
export interface Foreign {
  readonly topic: Topic
  readonly key: string | null
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
}

/**
 * Another program's client of the broker. All that it publishes is durable once it resolves, and lies in the partition
 * of the key `beside`. Keys and values that are null exist on Kafka alone.
 */
export async function publishForeign(parts: Parts, beside: string, messages: readonly Foreign[]): Promise<void> {
  const { BROKER_URL } = parts.environment
  if (BROKER_URL === undefined) return publishToFile(join(parts.dataDir, 'broker.db'), messages)
  const producer = kafka(BROKER_URL).producer({ allowAutoTopicCreation: false })
  await producer.connect()
  try {
    const topicMessages = messages.map(({ topic, key, value, headers }) => ({
      topic,
      messages: [
        {
          key,
          value: value && Buffer.from(value),
          headers: Object.fromEntries(headers.map(([name, bytes]) => [name, Buffer.from(bytes)])),
          partition: partitionOf(beside, topicSettings[topic].partitions),
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
  const given = messages.flatMap(({ key, value, ...rest }) =>
    key === null || value === null ? [] : [{ ...rest, key, value }],
  )
  await broker.publish(given).finally(() => broker.close())
}

export function kafka(brokerUrl: string): Kafka {
  const brokers = (brokerUrl.split('?')[0] ?? '').replace('kafka://', '').split(',')
  return new Kafka({ clientId: 'foreign', brokers, logLevel: logLevel.NOTHING })
}
