import { decode, type Envelope, encode } from '@posta/common/messages/envelope.ts'
import type { Delivered, Outgoing } from '@posta/common/messages/message.ts'
import { topics } from '@posta/common/messages/topics.ts'
import type { OperationType } from '@posta/common/operations/catalog.ts'
import type { RateTable } from '@posta/common/operations/rates.ts'
import { createFakeBroker } from '@posta/common/testing/fake-broker.ts'

// For the tests of processor: requests as gateway sends them, and what gateway reads of the replies.

export const NOON_MS = Date.UTC(2026, 10, 23, 12)
export const NOON = new Date(NOON_MS).toISOString()

export const usdRates: RateTable = {
  base: 'USD',
  date: '2026-11-23',
  source: 'live',
  rates: [
    { code: 'ARS', rate: '1472.5' },
    { code: 'USD', rate: '1' },
  ],
}

export interface Asked {
  readonly user?: string
  readonly type?: OperationType
  readonly input?: Record<string, unknown>
  readonly rates?: RateTable
  readonly createdAt?: string
  readonly redrive?: string
}

/** A request as gateway sends it. By default, one USD is converted to ARS. */
export function requested(operation: string, asked: Asked = {}): Outgoing {
  const { user = 'ana', type = 'convert', rates = usdRates, createdAt = NOON, redrive } = asked
  const input = asked.input ?? { from: 'USD', to: 'ARS', amount: '1' }
  return encode({
    id: `${operation}.requested`,
    type: 'posta.operation.requested',
    time: createdAt,
    subject: operation,
    traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    redrive,
    data: { user, operation, operationType: type, input, rates, createdAt },
  })
}

export function usd(amount: string): Record<string, unknown> {
  return { from: 'USD', to: 'ARS', amount }
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
