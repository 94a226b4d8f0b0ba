// 8. Stores every message as an event, in the chain of its partition. The way ends here.
import type { Subscription } from '@posta/common/broker/broker.ts'
import { type Consumer, consume } from '@posta/common/consumer/consume.ts'
import { decode } from '@posta/common/messages/envelope.ts'
import type { Delivered } from '@posta/common/messages/message.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { Counter } from 'prom-client'
import type { DeadLetters } from '../dead-letters/dead-letters.ts'
import { toDeadLetter } from '../dead-letters/from-message.ts'
import type { Append } from './append.ts'
import { toEvent } from './record.ts'

/** What a message is to monitor. */
type Kind = 'event' | 'dead letter' | 'left to others'

/** Never throws. */
export function readMessage(message: Delivered): { readonly item: Kind } | { readonly unreadable: string } {
  // Stored as a dead letter even where it cannot be read as one: set aside again, it would come back for ever.
  if (message.topic === topics.deadLetters) return { item: 'dead letter' }
  const decoded = decode(message)
  if ('envelope' in decoded) return { item: 'event' }
  // Processor reads the requests too, and gateway the results: each sets aside what it cannot read, once, and monitor gets
  // that as a dead letter. Nobody else reads the events.
  return message.topic === topics.events ? decoded : { item: 'left to others' }
}

interface ReceiveOptions {
  readonly append: Append
  readonly deadLetters: Pick<DeadLetters, 'add'>
  /** Called after events were stored. */
  readonly onStored: () => void
  readonly deps: Pick<Deps, 'now'>
}

/** Stores each event once in its chain, and each dead letter once. They are durable when it resolves. */
export function createReceive({ append, deadLetters, onStored, deps }: ReceiveOptions): Consumer<Kind>['handle'] {
  return async (received, signal) => {
    const nowMs = deps.now()
    const of = (kind: Kind) => received.filter(({ item }) => item === kind).map(({ message }) => message)
    const events = of('event').map((message) => toEvent(message, nowMs))
    if (events.length > 0) {
      await append(events, signal)
      onStored()
    }
    const letters = of('dead letter').map((message) => toDeadLetter(message, nowMs))
    if (letters.length > 0) await deadLetters.add(letters)
    return received.map(() => ({ done: true }))
  }
}

/** Reads every topic, in a group of monitor's own. */
export function receiveEvents(
  options: ReceiveOptions & Pick<Consumer<Kind>, 'broker' | 'log' | 'metrics' | 'deps'>,
): Subscription {
  const { broker, log, metrics, deps } = options
  const receive = createReceive(options)
  const read = new Counter({
    name: 'posta_messages_read_total',
    help: 'Messages that monitor has dealt with, by their kind. A message that is delivered again counts again.',
    labelNames: ['topic', 'kind'],
    registers: [metrics],
  })
  return consume({
    broker,
    group: groups.monitor,
    topics: Object.values(topics),
    read: readMessage,
    async handle(received, signal) {
      const verdicts = await receive(received, signal)
      for (const { item: kind, message } of received) read.inc({ topic: message.topic, kind })
      return verdicts
    },
    log,
    metrics,
    deps,
  })
}
