import { deadLetterId, encodeDeadLetter, idText, userByKey } from '../messages/dead-letter.ts'
import { encode } from '../messages/envelope.ts'
import { type Delivered, headerText, type Outgoing } from '../messages/message.ts'
import type { Group } from '../messages/topics.ts'
import type { ConsumeOptions, Received } from './handler.ts'
import { countByTopic } from './metrics.ts'
import type { Outages } from './outages.ts'

/** A message that will not be handled, and why. Without `received` where it is unreadable. */
export interface Dead<Item> {
  readonly message: Delivered
  readonly reason: string
  readonly received?: Received<Item>
}

/**
 * Publishes dead letters, each with the event that tells of it, and then calls `onDead` for each readable one.
 * @throws once `signal` has aborted
 */
export type SetAside<Item> = (dead: readonly Dead<Item>[], signal: AbortSignal) => Promise<void>

export function createSetAside<Item>(options: ConsumeOptions<Item>, { waitOut }: Outages): SetAside<Item> {
  const { broker, group, deps, log } = options
  const count = countByTopic(options, 'posta_dead_letters_total', 'Messages set aside as dead letters.')

  async function publish(dead: readonly Dead<Item>[]): Promise<void> {
    const messages = dead.flatMap(({ message, reason }) => [
      encodeDeadLetter(message, group, reason),
      deadLettered(message, group, reason, deps.now()),
    ])
    await broker.publish(messages)
    for (const { received, reason } of dead) if (received) await options.onDead?.(received, reason)
  }

  return async (dead, signal) => {
    if (dead.length === 0) return
    await waitOut(() => publish(dead), signal)
    for (const { message, reason } of dead) {
      count(message.topic)
      log.warn({ deadLetter: deadLetterId(message), reason }, 'a message was set aside as a dead letter')
    }
  }
}

/** The event of a dead letter. Its id follows from the message's position, so that it is stored once. */
function deadLettered(message: Delivered, group: Group, reason: string, nowMs: number): Outgoing {
  const deadLetter = deadLetterId(message)
  const { topic, partition, offset } = message
  return encode({
    id: `${deadLetter}.dead-lettered`,
    type: 'posta.message.dead-lettered',
    time: new Date(nowMs).toISOString(),
    subject: idText(headerText(message, 'ce_subject')),
    data: { user: userByKey(message), deadLetter, group, topic, partition, offset, reason: reason.slice(0, 2000) },
  })
}
