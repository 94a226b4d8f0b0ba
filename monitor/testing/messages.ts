import { encode } from '@posta/common/messages/envelope.ts'
import type { MessageData } from '@posta/common/messages/events.ts'
import type { Delivered, Outgoing } from '@posta/common/messages/message.ts'
import { sample } from '@posta/common/testing/sample.ts'

/** Noon of the day on which tests happen; `at` is so many ms later, RFC 3339. */
export const NOON_MS = Date.UTC(2026, 10, 23, 12)
export const at = (ms: number) => new Date(NOON_MS + ms).toISOString()

export function deliver({ topic, key, value, headers }: Outgoing, offset = 0, partition = 0): Delivered {
  return { topic, partition, offset, timestampMs: NOON_MS, key: Buffer.from(key), value, headers }
}

export function requested(operation: string, user = 'ana', ms = 0): Outgoing {
  return encode({
    id: `${operation}.requested`,
    type: 'posta.operation.requested',
    time: at(ms),
    subject: operation,
    traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    data: {
      user,
      operation,
      operationType: sample.type,
      input: sample.input(),
      facts: sample.facts,
      createdAt: at(ms),
    },
  })
}

export function succeeded(operation: string, user = 'ana', ms = 40, redrive?: string): Outgoing {
  return encode({
    id: `${operation}.succeeded`,
    type: 'posta.operation.succeeded',
    time: at(ms),
    subject: operation,
    redrive,
    data: {
      user,
      operation,
      operationType: sample.type,
      output: sample.output(),
      createdAt: at(0),
      completedAt: at(ms),
    },
  })
}

export function failed(operation: string, user = 'ana', ms = 40): Outgoing {
  return encode({
    id: `${operation}.failed`,
    type: 'posta.operation.failed',
    time: at(ms),
    subject: operation,
    data: {
      user,
      operation,
      operationType: sample.type,
      error: { code: 'dead-lettered', message: 'Its message could not be processed.' },
      createdAt: at(0),
      completedAt: at(ms),
    },
  })
}

type Progress = Pick<MessageData<'posta.operation.progressed'>, 'step' | 'status'>

export function progressed(operation: string, n: number, ms: number, more: Partial<Progress> = {}) {
  return encode({
    id: `${operation}.progress.${n}`,
    type: 'posta.operation.progressed',
    time: at(ms),
    subject: operation,
    data: { user: 'ana', operation, operationType: sample.type, n, step: 'pay', status: 'done', at: at(ms), ...more },
  })
}

export function abandoned(operation: string, deadLetter = 'd1', ms = 0): Outgoing {
  return encode({
    id: `${deadLetter}.abandoned`,
    type: 'posta.operation.abandoned',
    time: at(ms),
    subject: operation,
    data: { user: 'ana', operation, operationType: sample.type, by: 'olga', deadLetter },
  })
}

export function loggedIn(id: string, user = 'ana', ms = 0): Outgoing {
  return encode({ id, type: 'posta.user.logged-in', time: at(ms), data: { user, session: `${id}.session` } })
}
