import { pino } from 'pino'
import type { Broker } from './broker.ts'
import { openKafka } from './kafka.ts'

/** How another process of the suite opens the broker. */
export function openQuietly(options: { url: string; namespace: string }): Broker {
  return openKafka({ ...options, clientId: 'posta-test', log: pino({ level: process.env.KAFKA_TEST_LOG ?? 'silent' }) })
}
