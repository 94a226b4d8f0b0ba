import { decode, encode } from '@posta/common/messages/envelope.ts'
import type { Delivered, Outgoing } from '@posta/common/messages/message.ts'
import type { OperationType } from '@posta/common/operations/catalog.ts'
import type { RateTable } from '@posta/common/operations/rates.ts'
import type { ResultSummary } from './results/results.ts'

/** What gateway asks processor to do. */
export interface Request {
  /** The operation's id. */
  readonly id: string
  readonly user: string
  readonly type: OperationType
  /** As it came. Whether it fits the contract is checked when the operation is performed. */
  readonly input: Readonly<Record<string, unknown>>
  readonly rates: RateTable
  readonly createdAt: string
  /** The UTC date of `createdAt`. */
  readonly day: string
  readonly redrive: string | undefined
  readonly traceparent: string | undefined
}

/** Ids become keys of stores and parts of other ids: short, and of characters that every store compares alike. */
const ID = /^[\x21-\x7e]{1,100}$/

export function readRequest(message: Delivered): { readonly item: Request } | { readonly unreadable: string } {
  const decoded = decode(message)
  if ('unreadable' in decoded) return decoded
  const { type, data, redrive, traceparent } = decoded.envelope
  if (type !== 'posta.operation.requested') return { unreadable: 'It is not a request.' }
  const { operation: id, user, operationType, input, rates, createdAt } = data
  if (![id, user, redrive ?? id].every((text) => ID.test(text)))
    return { unreadable: 'One of its ids is not 1 to 100 visible ASCII characters.' }
  // The key decides the partition. Order and limit rely on each user having one partition.
  if (Buffer.from(message.key ?? []).toString() !== user) return { unreadable: "Its key is not the user's id." }
  const createdAtMs = Date.parse(createdAt)
  if (Number.isNaN(createdAtMs)) return { unreadable: 'Its createdAt is not a time that exists.' }
  const day = new Date(createdAtMs).toISOString().slice(0, 10)
  return { item: { id, user, type: operationType, input, rates, createdAt, day, redrive, traceparent } }
}

/**
 * The reply to a request. It follows from the stored result and from the request's headers alone, so that a request that
 * comes again gets the same reply, byte for byte.
 * @throws Problem `payload-too-large`
 */
export function toReply(result: ResultSummary, { redrive, traceparent }: Request): Outgoing {
  const { id: operation, user, type: operationType, createdAt, completedAt } = result
  // Once a redrive has succeeded, the first request is answered as the redrive was, too.
  const answered = redrive ?? result.redrive
  const attributes = {
    id: `${operation}.${answered ?? 'result'}`,
    time: completedAt,
    subject: operation,
    redrive: answered,
    traceparent,
  }
  const data = { user, operation, operationType, createdAt, completedAt }
  return result.status === 'succeeded'
    ? encode({ ...attributes, type: 'posta.operation.succeeded', data: { ...data, output: result.output } })
    : encode({ ...attributes, type: 'posta.operation.failed', data: { ...data, error: result.error } })
}
