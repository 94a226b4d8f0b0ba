import { type Outgoing, type RecordPosition, sizeBytes } from '../../messages/message.ts'
import { type Topic, topicSettings, topics } from '../../messages/topics.ts'
import { MessageTooLarge } from '../broker.ts'
import type { Connect } from './client.ts'
import { framedBytes } from './message-format.ts'
import { createTopicProducer, type TopicProducer } from './topic-producer.ts'
import { FRAMING_BYTES, type Topics } from './topics.ts'

export interface Publisher {
  publish(messages: readonly Outgoing[]): Promise<readonly RecordPosition[]>
  /** Connects a producer for every topic, so that the first message need not wait for that. */
  connect(): void
  /** Refuses new messages, and waits at most `graceMs` for those that are being published. */
  close(graceMs: number): Promise<void>
}

/** Publishes over any number of topics: each topic has a producer of its own, so that a failing one holds up no other. */
export function createPublisher(options: { readonly connect: Connect; readonly topics: Topics }): Publisher {
  const producers = new Map<Topic, TopicProducer>()
  let closed = false

  function producerOf(topic: Topic): TopicProducer {
    const producer = producers.get(topic) ?? createTopicProducer({ ...options, topic })
    producers.set(topic, producer)
    return producer
  }

  return {
    async publish(messages) {
      if (closed) throw new Error('The broker has been closed: nothing more can be published.')
      for (const message of messages) refuseTooLarge(message)
      const positions: RecordPosition[] = []
      const byTopic = Map.groupBy(messages.entries(), ([, message]) => message.topic)
      await Promise.all(
        byTopic.entries().map(async ([topic, entries]) => {
          const published = await producerOf(topic).publish(entries.map(([, message]) => message))
          for (const [at, [index]] of entries.entries()) {
            const position = published[at]
            if (position) positions[index] = position
          }
        }),
      )
      return positions
    },

    connect() {
      if (!closed) for (const topic of Object.values(topics)) producerOf(topic).connect()
    },

    async close(graceMs) {
      closed = true
      await Promise.all(producers.values().map((producer) => producer.close(graceMs)))
    },
  }
}

function refuseTooLarge(message: Outgoing): void {
  const { topic } = message
  const bytes = sizeBytes(message)
  const limitBytes = topicSettings[topic].maxMessageBytes
  if (bytes > limitBytes || framedBytes(message) > limitBytes + FRAMING_BYTES)
    throw new MessageTooLarge(topic, bytes, limitBytes)
}
