import { encode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { catalog, operationTypes } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import type { RateTable } from '@posta/common/operations/rates.ts'
import { problemCodes } from '@posta/common/service/problem.ts'
import * as v from 'valibot'
import type { operations } from '../database/schema.ts'

const contracts: readonly Contract[] = Object.values(catalog)
const inputs = contracts.map((contract) => contract.input)
const outputs = contracts.map((contract) => contract.output)

/** An operation as its user sees it. `output` if it succeeded, `error` if it failed. */
export const Operation = v.object({
  id: v.string(),
  type: v.picklist(operationTypes),
  status: v.picklist(['pending', 'succeeded', 'failed']),
  input: v.union(inputs),
  output: v.optional(v.union(outputs)),
  error: v.optional(v.object({ code: v.picklist(problemCodes), message: v.string() })),
  createdAt: v.pipe(v.string(), v.isoTimestamp()),
  completedAt: v.optional(v.pipe(v.string(), v.isoTimestamp())),
})
export type Operation = v.InferOutput<typeof Operation>

export type OperationRow = typeof operations.$inferSelect

export function toOperation(row: OperationRow): Operation {
  return {
    id: row.id,
    type: row.type,
    status: row.status,
    input: row.input,
    ...(row.output && { output: row.output }),
    ...(row.errorCode && { error: { code: row.errorCode, message: row.errorMessage ?? '' } }),
    createdAt: new Date(row.createdAt).toISOString(),
    ...(row.completedAt !== null && { completedAt: new Date(row.completedAt).toISOString() }),
  }
}

export function isTerminal(operation: Pick<Operation, 'status'>): boolean {
  return operation.status !== 'pending'
}

/**
 * The message that asks processor to perform an operation. It follows from the row alone, so that each time it is sent it
 * is the same, byte for byte.
 * @throws Problem `payload-too-large`
 */
export function toRequest(
  row: Pick<OperationRow, 'id' | 'userId' | 'type' | 'input' | 'traceparent' | 'createdAt'>,
  rates: RateTable,
): Outgoing {
  const { id, userId, type: operationType, input, traceparent } = row
  const createdAt = new Date(row.createdAt).toISOString()
  return encode({
    id,
    type: 'posta.operation.requested',
    time: createdAt,
    subject: id,
    traceparent: traceparent ?? undefined,
    data: { user: userId, operation: id, operationType, input, rates, createdAt },
  })
}
