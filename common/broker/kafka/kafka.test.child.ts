import { pino } from 'pino'
import { NAME } from '../../name.ts'
import type { Broker } from '../broker.ts'
import { parseBrokerUrl } from '../broker-url.ts'
import { openKafka } from './kafka.ts'

/** Opens the broker, by default without a log, here and in the suite's child processes. */
export function openQuietly(
  options: { url: string; namespace: string; username?: string; password?: string },
  log = pino({ level: 'silent' }),
): Broker {
  const parsed = parseBrokerUrl(options.url, options)
  if ('fault' in parsed || parsed.address.kind !== 'kafka') throw new Error(`No URL of a Kafka: ${options.url}`)
  return openKafka({ ...options, address: parsed.address, clientId: `${NAME}-test`, log })
}
