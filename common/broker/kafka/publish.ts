import type { Outgoing, RecordPosition } from '../../messages/message.ts'
import type { Topic } from '../../messages/topics.ts'
import { refuseTooLarge } from '../broker.ts'
import type { Connect } from './client.ts'
import { createTopicProducer, type TopicProducer } from './topic-producer.ts'
import type { Topics } from './topics.ts'

/** Publishes to any topic. Each topic has a producer of its own, so that one which fails holds up no other. */
export function createPublisher(options: { readonly connect: Connect; readonly topics: Topics }) {
  const producers = new Map<Topic, TopicProducer>()
  let closed = false

  function producerOf(topic: Topic): TopicProducer {
    const producer = producers.get(topic) ?? createTopicProducer({ ...options, topic })
    producers.set(topic, producer)
    return producer
  }

  return {
    async publish(messages: readonly Outgoing[]): Promise<readonly RecordPosition[]> {
      if (closed) throw new Error('The broker has been closed: nothing more can be published.')
      for (const message of messages) refuseTooLarge(message)
      return Promise.all(messages.map((message) => producerOf(message.topic).publish(message)))
    },

    /** Refuses new messages, and waits at most `graceMs` for those that are being published. */
    async close(graceMs: number): Promise<void> {
      closed = true
      await Promise.all(producers.values().map((producer) => producer.close(graceMs)))
    },
  }
}
