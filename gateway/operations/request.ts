import type { Envelope } from '@posta/common/messages/envelope.ts'
import type { OperationRow } from './operation.ts'

/** What the request message says. Everything is of the row, so that sending it again says the same. */
export function requestOf(
  row: Pick<OperationRow, 'id' | 'userId' | 'type' | 'input' | 'traceparent' | 'createdAt'> & {
    rates: NonNullable<OperationRow['rates']>
  },
): Envelope<'posta.operation.requested'> {
  const createdAt = new Date(row.createdAt).toISOString()
  return {
    id: row.id,
    type: 'posta.operation.requested',
    time: createdAt,
    subject: row.id,
    traceparent: row.traceparent ?? undefined,
    data: {
      user: row.userId,
      operation: row.id,
      operationType: row.type,
      input: row.input,
      rates: row.rates,
      createdAt,
    },
  }
}
