import { decode, type Envelope, encode } from '@posta/common/messages/envelope.ts'
import type { Delivered, Outgoing } from '@posta/common/messages/message.ts'
import { topics } from '@posta/common/messages/topics.ts'
import { type Contracts, catalog, type OperationType } from '@posta/common/operations/catalog.ts'
import type { Limit } from '@posta/common/operations/contract.ts'
import { createFakeBroker } from '@posta/common/testing/fake-broker.ts'
import { sample, stepped } from '@posta/common/testing/sample.ts'
import * as v from 'valibot'
import type { AnyPerformer } from '../performers/performer.ts'
import { type Performers, performers } from '../performers/performers.ts'

// For the tests of processor: requests as gateway sends them, and what gateway reads of the replies.

export const NOON_MS = Date.UTC(2026, 10, 23, 12)
export const NOON = new Date(NOON_MS).toISOString()

export interface Asked {
  readonly user?: string
  readonly type?: OperationType
  readonly input?: Record<string, unknown>
  /** Undefined: those of `sample`, or `stepped`. */
  readonly facts?: Record<string, unknown>
  readonly createdAt?: string
  readonly redrive?: string
}

/** A request as gateway sends it: by default, of `sample`. */
export function requested(operation: string, asked: Asked = {}): Outgoing {
  const { user = 'ana', type = sample.type, createdAt = NOON, redrive } = asked
  const { input = sample.input(), facts = (type === stepped.type ? stepped : sample).facts } = asked
  return encode({
    id: `${operation}.requested`,
    type: 'posta.operation.requested',
    time: createdAt,
    subject: operation,
    traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    redrive,
    data: { user, operation, operationType: type, input, facts, createdAt },
  })
}

const limit: Limit = { name: 'test', period: 'day', variable: 'TEST_LIMIT', defaultBound: '10000', digits: 0 }
const failures = ['limit-exceeded'] as const
const signals = {
  approve: {
    description: 'Whether it may be done.',
    payload: v.strictObject({ approved: v.boolean() }),
    from: 'operator',
  },
} as const

/** The catalog, in which `sample` and `stepped` count against one limit of 10,000 in a day, and `stepped` takes an answer. */
export const contracts: Contracts = {
  ...catalog,
  [sample.type]: { ...catalog[sample.type], limit, failures },
  [stepped.type]: { ...catalog[stepped.type], limit, failures, signals },
}
export const bounds: ReadonlyMap<string, number> = new Map([['test', 10_000]])
export const allowance = (user: string, period = '2026-11-23') => ({ user, limit: 'test', period })

/** As much is counted as the number in the input says. */
const counting = (succeed: (n: number) => ReturnType<AnyPerformer['decide']>): AnyPerformer['decide'] => {
  return ({ input, limit: { used, bound } }) => {
    const n = sample.numberIn(input)
    if (used + n > bound) return { failure: { code: 'limit-exceeded', message: 'It is too much.' } }
    return { ...succeed(n), counts: n }
  }
}
export const decideSample = counting((n) => ({ output: sample.output(n) }))

/** Performers that count. `sample` decides as it is said. */
export function countingPerformers(decide = decideSample): Performers {
  return {
    ...performers,
    [sample.type]: Object.assign({ ...performers[sample.type] }, { decide }),
    [stepped.type]: Object.assign({ ...performers[stepped.type] }, { decide: counting((n) => ({ goOn: { n } })) }),
  }
}

export function delivered({ topic, key, value, headers }: Outgoing, offset = 0): Delivered {
  return { topic, partition: 0, offset, timestampMs: NOON_MS, key: Buffer.from(key), value, headers }
}

export type Reply = Envelope<'posta.operation.succeeded'> | Envelope<'posta.operation.failed'>

/** The messages on the topic of results, decoded. */
export function repliesIn(messages: readonly Outgoing[]): Reply[] {
  return messages
    .filter(({ topic }) => topic === topics.results)
    .map((message) => {
      const decoded = decode(delivered(message))
      if ('unreadable' in decoded) throw new Error(decoded.unreadable)
      const { envelope } = decoded
      if (envelope.type === 'posta.operation.succeeded' || envelope.type === 'posta.operation.failed') return envelope
      throw new Error(`A ${envelope.type} is no reply.`)
    })
}

/** A fake broker that delivers requests and keeps the replies. */
export function createFakeRequests() {
  const { broker, published, committed, failNextPublishes, losePartition, deliver } = createFakeBroker()
  let offset = 0
  let handledTo = 0
  return {
    broker,
    published,
    replies: () => repliesIn(published),
    /** The group's offset: everything before it is done. */
    committed: () => Math.max(handledTo, committed.at(-1) ?? 0),
    failNextPublishes,
    losePartition,
    /** Resolves once the batch is handled, except for messages that wait for a retry. */
    async deliver(messages: readonly Outgoing[]): Promise<void> {
      const batch = messages.map((message) => delivered(message, offset++))
      const next = offset
      const answer = await deliver(batch)
      handledTo = answer ? answer.heldFrom : next
    },
  }
}
