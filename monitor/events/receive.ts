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

type Kind = 'event' | 'dead letter' | 'left to others'

/** What a message is to monitor. Never throws. */
export function readMessage(message: Delivered): { readonly item: Kind } | { readonly unreadable: string } {
  // What cannot be read among the dead letters is kept there too: sent on, it would come back for ever.
  if (message.topic === topics.deadLetters) return { item: 'dead letter' }
  const decoded = decode(message)
  if ('envelope' in decoded) return { item: 'event' }
  // Processor reads the requests too, and gateway the results: they set aside what cannot be read, once, and it comes
  // back as a dead letter. The events have no other reader.
  return message.topic === topics.events ? decoded : { item: 'left to others' }
}

/**
 * Stores each event once in its chain, and each dead letter once. Durable when it resolves.
 * @param parts.onStored is called when events were stored.
 */
export function createReceive(parts: {
  append: Append
  deadLetters: Pick<DeadLetters, 'add'>
  onStored: () => void
  deps: Pick<Deps, 'now'>
}): Consumer<Kind>['handle'] {
  const { append, deadLetters, onStored, deps } = parts
  return async (received, signal) => {
    const nowMs = deps.now()
    const events = received.filter(({ item }) => item === 'event').map(({ message }) => toEvent(message, nowMs))
    if (events.length > 0) {
      await append(events, signal)
      onStored()
    }
    const letters = received
      .filter(({ item }) => item === 'dead letter')
      .map(({ message }) => toDeadLetter(message, nowMs))
    if (letters.length > 0) await deadLetters.add(letters)
    return received.map(() => ({ done: true }))
  }
}

/** Reads every topic in a group of its own. */
export function receiveEvents(
  parts: Pick<Consumer<Kind>, 'broker' | 'log' | 'metrics'> & { deps: Deps } & Omit<
      Parameters<typeof createReceive>[0],
      'deps'
    >,
): Subscription {
  const { broker, log, metrics, deps } = parts
  const receive = createReceive(parts)
  const read = new Counter({
    name: 'posta_messages_read_total',
    help: 'Messages that monitor has dealt with, by what they were to it. One that came again counts again.',
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
