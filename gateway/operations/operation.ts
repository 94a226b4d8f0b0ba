import { encode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { contracts, operationTypes } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import { problemCodes } from '@posta/common/service/problem.ts'
import * as v from 'valibot'
import type { operations, ProgressEntry } from '../database/schema.ts'

const inputs = contracts.map((contract) => contract.input)
const outputs = contracts.map((contract) => contract.output)

/** What a contract's documents say of the operation. */
export function describe({ description, requires }: Contract): string {
  return requires === undefined ? description : `${description} It is offered only where ${requires} is set.`
}

/** A step that is done or undone, or a wait that has begun. `at`: when that was recorded. */
export const OperationProgress = v.object({
  step: v.string(),
  status: v.picklist(['done', 'undone', 'waiting']),
  at: v.pipe(v.string(), v.isoTimestamp()),
})

/** An operation as its user sees it. `output` if it succeeded, `error` if it failed, `progress` if it is done in steps. */
export const Operation = v.object({
  id: v.string(),
  type: v.picklist(operationTypes),
  status: v.picklist(['pending', 'succeeded', 'failed']),
  input: v.union(inputs),
  output: v.optional(v.union(outputs)),
  error: v.optional(v.object({ code: v.picklist(problemCodes), message: v.string() })),
  progress: v.optional(v.array(OperationProgress)),
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
    ...(row.progress && { progress: toProgress(row.progress) }),
    createdAt: new Date(row.createdAt).toISOString(),
    ...(row.completedAt !== null && { completedAt: new Date(row.completedAt).toISOString() }),
  }
}

/** In the order in which they were recorded. Messages may have come in another. */
function toProgress(entries: Readonly<Record<string, ProgressEntry>>) {
  return Object.entries(entries)
    .toSorted(([a], [b]) => Number(a) - Number(b))
    .map(([, { step, status, at }]) => ({ step, status, at }))
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
  row: Pick<OperationRow, 'id' | 'userId' | 'type' | 'input' | 'facts' | 'traceparent' | 'createdAt'>,
): Outgoing {
  const { id, userId, type: operationType, input, traceparent } = row
  const facts = row.facts ?? undefined
  const createdAt = new Date(row.createdAt).toISOString()
  return encode({
    id,
    type: 'posta.operation.requested',
    time: createdAt,
    subject: id,
    traceparent: traceparent ?? undefined,
    data: { user: userId, operation: id, operationType, input, facts, createdAt },
  })
}
