import { Counter, Gauge } from 'prom-client'
import type { Subscription } from '../broker/broker.ts'
import type { Topic } from '../messages/topics.ts'
import type { ConsumeOptions } from './handler.ts'

type Options = Pick<ConsumeOptions<never>, 'group' | 'topics' | 'metrics'>

/** A counter that begins at 0 for each topic. One that begins at 1 hides its first increase from an alert. */
export function countByTopic({ group, topics, metrics }: Options, name: string, help: string): (topic: Topic) => void {
  const counter = new Counter({ name, help, labelNames: ['group', 'topic'], registers: [metrics] })
  for (const topic of topics) counter.inc({ group, topic }, 0)
  return (topic) => counter.inc({ group, topic })
}

/** A handler that is slow or stands still shows here: what it has not taken waits at the broker, not in memory. */
export function showLag({ group, metrics }: Options, subscription: Pick<Subscription, 'lag'>): void {
  new Gauge({
    name: 'posta_consumer_lag',
    help: "Messages that this member's partitions hold beyond the group's offset.",
    labelNames: ['topic', 'partition', 'group'],
    registers: [metrics],
    collect() {
      this.reset()
      for (const { topic, partition, lag } of subscription.lag()) this.set({ topic, partition, group }, lag)
    },
  })
}
