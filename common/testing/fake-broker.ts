import type { Batch, BatchHandler, Broker } from '../broker/broker.ts'
import type { Delivered, Outgoing } from '../messages/message.ts'
import { topics } from '../messages/topics.ts'

/**
 * For tests: a broker with one subscriber, to which the test delivers. It keeps what is published, and fails when told to.
 * @example
 * const { broker, deliver, published } = createFakeBroker()
 * await receiveRequests({ broker, ...others }).start()
 * await deliver([delivered(0, 'ana', 'a request')])
 */
export function createFakeBroker() {
  const published: Outgoing[] = []
  const handler = Promise.withResolvers<BatchHandler>()
  const lost = new AbortController()
  const committed: number[] = []
  let failures = 0
  const broker: Broker = {
    async publish(messages) {
      if (failures-- > 0) throw new Error('The broker is down.')
      published.push(...messages)
      return messages.map(({ topic }, index) => ({ topic, partition: 0, offset: index }))
    },
    async subscribe(_group, _topics, handle) {
      handler.resolve(handle)
      return { state: () => 'running', ended: new Promise(() => {}), lag: () => [], close: async () => {} }
    },
    ping: async () => {},
    close: async () => {},
  }
  return {
    broker,
    published,
    /** Each offset that `Batch.commit` was given, in order. */
    committed,
    failNextPublishes(times: number) {
      failures = times
    },
    losePartition: () => lost.abort(new Error('The partition is lost.')),
    /** Resolves to what the handler answers to a batch of the messages, which are of one topic. */
    async deliver(messages: readonly Delivered[]) {
      const [first] = messages
      if (!first) throw new Error('A batch has at least one message.')
      const { topic, partition } = first
      const commit: Batch['commit'] = async (next) => void committed.push(next)
      return (await handler.promise)({ topic, partition, messages, signal: lost.signal, commit })
    },
  }
}

/** For tests: a request as the broker delivers it. */
export function delivered(offset: number, key: string, value: string): Delivered {
  return {
    topic: topics.requests,
    partition: 0,
    offset,
    timestampMs: 1000,
    key: Buffer.from(key),
    value: Buffer.from(value),
    headers: [],
  }
}
