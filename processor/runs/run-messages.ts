import { deadLetterId, deadLetterMessages } from '@posta/common/messages/dead-letter.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import type { Delivered, Outgoing } from '@posta/common/messages/message.ts'
import { groups, topics } from '@posta/common/messages/topics.ts'
import type { NewRun, RunRecord } from './runs.ts'

/**
 * What a record of a run publishes, besides the reply. It follows from the run and the record alone: whoever publishes it,
 * and however often, it is the same.
 */
export function messagesOf(run: NewRun, record: RunRecord): Outgoing[] {
  if (record.kind === 'done' || record.kind === 'undone' || record.kind === 'waiting') return [progress(run, record)]
  if (record.kind === 'stuck')
    return deadLetterMessages(requestOf(run), groups.processor, record.reason, record.atMs, record.n)
  return []
}

function progress(run: NewRun, record: Extract<RunRecord, { kind: 'done' | 'undone' | 'waiting' }>): Outgoing {
  const { id: operation, user, type: operationType, traceparent } = run
  const { n, step, kind: status, atMs } = record
  const at = new Date(atMs).toISOString()
  return encode({
    id: `${operation}.progress.${n}`,
    type: 'posta.operation.progressed',
    time: at,
    subject: operation,
    traceparent,
    data: {
      user,
      operation,
      operationType,
      n,
      step,
      status,
      at,
      ...(record.kind === 'waiting' && { until: new Date(record.untilMs).toISOString(), forSignal: record.forSignal }),
    },
  })
}

/** The dead letter of a `stuck` record. */
export function deadLetterOf({ position }: Pick<NewRun, 'position'>, stuck: Pick<RunRecord, 'n'>): string {
  return deadLetterId({ ...position, topic: topics.requests }, stuck.n)
}

/** The request as it came. */
function requestOf(run: NewRun): Delivered {
  const { id: operation, user, type: operationType, input, facts, createdAt, traceparent } = run
  const { key, ...message } = encode({
    id: operation,
    type: 'posta.operation.requested',
    time: createdAt,
    subject: operation,
    traceparent,
    redrive: run.redrive,
    data: { user, operation, operationType, input, facts, createdAt },
  })
  return { ...message, ...run.position, key: Buffer.from(key) }
}
