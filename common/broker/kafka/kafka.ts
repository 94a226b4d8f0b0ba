import type { Logger } from '../../service/log.ts'
import type { Broker, Subscription } from '../broker.ts'
import type { Credentials, KafkaAddress } from '../broker-url.ts'
import { createConnector } from './client.ts'
import { createPing } from './ping.ts'
import { createPublisher } from './publish.ts'
import { subscribe } from './subscribe.ts'
import { createTopics } from './topics.ts'

const PUBLISH_GRACE_MS = 1500

/**
 * The broker on Kafka or Redpanda, by kafkajs. Opening never connects.
 *
 * `subscribe` and `publish` create the topics that are missing, and reject with `TopicMismatch` where one has another
 * number of partitions. Headers of one name keep their order; headers of different names may not.
 */
export function openKafka(
  options: Credentials & {
    readonly address: KafkaAddress
    /** Names this process in the broker's logs and quotas. */
    readonly clientId: string
    readonly log: Logger
    /** A prefix of every topic and group, so that tests on one broker do not meet. */
    readonly namespace?: string | undefined
  },
): Broker {
  const { address, username, password, clientId, log, namespace } = options
  const { connect, close: disconnect } = createConnector({ address, username, password, clientId, log })
  const topics = createTopics({ connect, namespace, log })
  const publisher = createPublisher({ connect, topics })
  const ping = createPing(connect)
  const subscriptions = new Set<Promise<Subscription>>()
  let closed: Promise<void> | undefined

  async function close(): Promise<void> {
    const opened = await Promise.allSettled(subscriptions)
    await Promise.all(opened.map((each) => each.status === 'fulfilled' && each.value.close()))
    await publisher.close(PUBLISH_GRACE_MS)
    disconnect()
  }

  return {
    publish: publisher.publish,
    async subscribe(group, to, handle) {
      if (closed) throw new Error('The broker has been closed: nothing more can be subscribed to.')
      const groupId = namespace === undefined ? group : `${namespace}.${group}`
      const subscribing = subscribe({ connect, topics, group, groupId, to, handle, ping, log })
      subscriptions.add(subscribing)
      const forget = () => subscriptions.delete(subscribing)
      subscribing.then(({ ended }) => ended.then(forget, forget), forget)
      return subscribing
    },
    ping,
    close() {
      closed ??= close()
      return closed
    },
  }
}
