import { type Delivered, headerText } from '../../common/messages/message.ts'
import type { Message } from './snapshot.ts'

/** A message as the checker reads it. Only its position is certain. */
export function toMessage(delivered: Delivered, generation: number): Message {
  const { topic, partition, offset, key, value } = delivered
  return {
    topic,
    generation,
    partition,
    offset,
    key: Buffer.from(key ?? []).toString(),
    type: headerText(delivered, 'ce_type'),
    id: headerText(delivered, 'ce_id'),
    operation: headerText(delivered, 'ce_subject'),
    redrive: headerText(delivered, 'ce_redrive'),
    value: Buffer.from(value ?? []).toString(),
  }
}
