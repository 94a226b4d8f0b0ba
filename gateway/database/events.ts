import { type Envelope, encode } from '@posta/common/messages/envelope.ts'
import type { MessageData, MessageType } from '@posta/common/messages/events.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { traceparent } from '@posta/common/service/trace.ts'
import { type SQL, sql } from 'drizzle-orm'
import { eventIfRoom } from './outbox.ts'
import { outbox } from './schema.ts'
import type { Statement } from './transaction.ts'

/**
 * Makes the statement that puts an event into the outbox, if `condition` is true when it runs. The event happens now. Where
 * the outbox is full the transaction fails with Problem `overloaded`: nothing happens whose event cannot be kept.
 * @param given.id a new one by default
 */
export type AddEvent = <Type extends MessageType>(
  type: Type,
  data: MessageData<Type>,
  condition?: SQL,
  given?: Partial<Pick<Envelope, 'id' | 'subject'>>,
) => Statement

export function eventAdder(deps: Pick<Deps, 'now' | 'newId'>): AddEvent {
  return <Type extends MessageType>(type: Type, data: MessageData<Type>, condition = sql`TRUE`, given = {}) => {
    const time = new Date(deps.now()).toISOString()
    const envelope: Envelope<Type> = { id: deps.newId(), type, time, traceparent: traceparent(), data, ...given }
    // Throws for an event that cannot become a message: it must not enter the outbox.
    encode(envelope)
    return sql`INSERT INTO ${outbox} (event) SELECT ${eventIfRoom(JSON.stringify(envelope))} WHERE ${condition}`
  }
}
