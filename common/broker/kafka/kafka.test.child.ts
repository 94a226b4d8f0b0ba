import { pino } from 'pino'
import type { Broker } from '../broker.ts'
import { openKafka } from './kafka.ts'

/** Opens the broker without a log, here and in the suite's child processes. */
export function openQuietly(options: { url: string; namespace: string; username?: string; password?: string }): Broker {
  return openKafka({ ...options, clientId: 'posta-test', log: pino({ level: 'silent' }) })
}
