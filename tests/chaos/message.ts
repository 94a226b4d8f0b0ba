import { type Delivered, headerText } from '../../common/messages/message.ts'
import type { Message } from './snapshot.ts'

/** A message of a topic as the checker reads it. Nothing in it is certain but its place. */
export function toMessage(delivered: Delivered, generation: number): Message {
  const { topic, partition, offset } = delivered
  const text = (name: string) => headerText(delivered, name)
  return {
    topic,
    generation,
    partition,
    offset,
    key: Buffer.from(delivered.key ?? []).toString('utf8'),
    type: text('ce_type'),
    id: text('ce_id'),
    operation: text('ce_subject'),
    redrive: text('ce_redrive'),
    value: Buffer.from(delivered.value ?? []).toString('utf8'),
  }
}
