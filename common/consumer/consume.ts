import { createSetAside } from './dead-letters.ts'
import { createDispatch } from './dispatch.ts'
import type { ConsumeOptions } from './handler.ts'
import { showLag } from './metrics.ts'
import { createOutages } from './outages.ts'
import { type Consumer, createConsumer } from './subscription.ts'

/**
 * A component that subscribes a handler at its start, with what every handler needs around it.
 *
 * - A message that is to be retried is attempted at most 5 times within 10 s, and then dead. Meanwhile later messages of
 *   its key wait, those of other keys go on, and the group's offset stays before it.
 * - A dead or unreadable message becomes a dead letter, with an event that tells of it.
 * - While the broker or a store fails, the partition waits.
 * @example
 * const requests = consume({
 *   name: 'requests',
 *   broker,
 *   group: groups.processor,
 *   topics: [topics.requests],
 *   read: readRequest,
 *   handle: async (received) => (await store(received)).map(() => ({ done: true })),
 *   log,
 *   metrics,
 *   deps: systemDeps,
 * })
 */
export function consume<Item>(given: ConsumeOptions<Item>): Consumer {
  const { broker, group, topics } = given
  const options = { firstPauseMs: 100, ...given, log: given.log.child({ group }) }
  const outages = createOutages(options)
  const dispatch = createDispatch(options, outages, createSetAside(options, outages))
  const consumer = createConsumer(options, outages, () => broker.subscribe(group, topics, dispatch))
  showLag(options, consumer)
  return consumer
}
