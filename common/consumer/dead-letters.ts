import { deadLetterId, deadLetterMessages } from '../messages/dead-letter.ts'
import type { Delivered } from '../messages/message.ts'
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
    await broker.publish(dead.flatMap(({ message, reason }) => deadLetterMessages(message, group, reason, deps.now())))
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
