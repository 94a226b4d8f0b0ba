import { pino } from 'pino'
import type { Broker } from '../broker.ts'
import { openKafka } from './kafka.ts'

/** How another process of the suite opens the broker. */
export function openQuietly(options: { url: string; namespace: string; username?: string; password?: string }): Broker {
  return openKafka({ ...options, clientId: 'posta-test', log: pino({ level: 'silent' }) })
}
