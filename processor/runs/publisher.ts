import type { Broker } from '@posta/common/broker/broker.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { backoff } from '@posta/common/service/backoff.ts'
import type { Logger } from '@posta/common/service/log.ts'

const MAX_BATCH = 500

/** Publishes messages in the order in which they were given, in batches, and again until the broker has them. */
export interface Publisher {
  /** Resolves when the broker holds them. Never rejects; after `close` it may never resolve. */
  publish(messages: readonly Outgoing[]): Promise<void>
  /** The reason, while the broker does not take messages. */
  failure(): unknown
  close(): void
}

export function createPublisher(broker: Pick<Broker, 'publish'>, log: Pick<Logger, 'warn' | 'info'>): Publisher {
  const waiting: { readonly messages: readonly Outgoing[]; readonly resolve: () => void }[] = []
  const pauses = backoff({ firstMs: 100, longestMs: 2000 })
  const closing = new AbortController()
  let working = false
  let failure: unknown

  async function work(): Promise<void> {
    while (waiting.length > 0 && !closing.signal.aborted) {
      const batch = waiting.slice(0, MAX_BATCH)
      try {
        await broker.publish(batch.flatMap(({ messages }) => messages))
        if (failure) log.info('what runs tell is published again')
        failure = undefined
        pauses.reset()
        for (const { resolve } of waiting.splice(0, batch.length)) resolve()
      } catch (error) {
        if (!failure) log.warn({ err: error }, 'what runs tell cannot be published; trying again')
        failure = error
        await pauses.pause(closing.signal)
      }
    }
    working = false
  }

  return {
    publish(messages) {
      if (messages.length === 0) return Promise.resolve()
      const { promise, resolve } = Promise.withResolvers<void>()
      waiting.push({ messages, resolve })
      if (!working) {
        working = true
        void work()
      }
      return promise
    },
    failure: () => failure,
    close: () => closing.abort(),
  }
}
