import { encode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import type { Outcome } from './results/results.ts'

/**
 * The reply to a request. It follows from the stored result and from the request's headers alone, so that a request that
 * comes again gets the same reply, byte for byte.
 * @throws Problem `payload-too-large`
 */
export function toReply(
  result: Outcome,
  { redrive, traceparent }: { readonly redrive?: string | undefined; readonly traceparent?: string | undefined },
): Outgoing {
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
