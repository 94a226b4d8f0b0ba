import { described } from '@posta/common/service/query.ts'
import * as v from 'valibot'
import type { StoredEvent } from './events.ts'
import { dataOf, header, readText } from './record.ts'

/** An event as clients see it. `data` is the message's value as received. */
export const ShownEvent = v.object({
  id: v.string(),
  type: v.string(),
  time: v.string(),
  user: v.optional(v.string()),
  operation: v.optional(v.string()),
  topic: v.string(),
  partition: v.number(),
  offset: v.number(),
  receivedAt: v.string(),
  data: v.unknown(),
  traceparent: v.optional(v.string()),
  redrive: v.optional(v.string()),
  chain: v.object({ name: v.string(), seq: v.number(), hash: v.string() }),
  altered: v.optional(
    described(v.literal(true), 'Its text was changed and cannot be read: `GET /audit/verify` says where and how.'),
  ),
})
export type ShownEvent = v.InferOutput<typeof ShownEvent>

/** An event whose text someone changed so that it cannot be read is shown too, as `altered`: a list must not end at it. */
export function show(event: StoredEvent): ShownEvent {
  const { id, type, user, operation, chain, seq, hash } = event
  const known = {
    id,
    type,
    ...(user !== undefined && { user }),
    ...(operation !== undefined && { operation }),
    chain: { name: chain, seq, hash },
  }
  try {
    return { ...known, ...showText(event.text) }
  } catch {
    const [topic = '', partition] = chain.split('/')
    const time = new Date(event.timeMs).toISOString()
    const position = { topic, partition: Number(partition), offset: -1 }
    return { ...known, ...position, time, receivedAt: time, data: null, altered: true }
  }
}

function showText(text: string) {
  const message = readText(text)
  const { topic, partition, offset, receivedAtMs } = message
  const traceparent = header(message, 'traceparent')
  const redrive = header(message, 'ce_redrive')
  return {
    topic,
    partition,
    offset,
    time: header(message, 'ce_time') ?? '',
    receivedAt: new Date(receivedAtMs).toISOString(),
    data: dataOf(message),
    ...(traceparent !== undefined && { traceparent }),
    ...(redrive !== undefined && { redrive }),
  }
}
