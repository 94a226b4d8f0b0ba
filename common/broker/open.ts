import type { Clock } from '../service/clock.ts'
import { ConfigError } from '../service/config.ts'
import type { Deps } from '../service/deps.ts'
import type { Logger } from '../service/log.ts'
import type { Broker } from './broker.ts'
import { parseBrokerUrl } from './broker-url.ts'
import { openEmbedded } from './embedded/embedded.ts'
import { openKafka } from './kafka/kafka.ts'

/** What a service takes from outside. `openBroker`: instead of the broker that `BROKER_URL` names, for whoever wraps it. */
export interface ServiceDeps extends Deps {
  readonly openBroker?: typeof openBroker
}

/**
 * The broker that `BROKER_URL` names: embedded in a file, or on Kafka.
 * @throws ConfigError where the URL or the credentials cannot work.
 */
export function openBroker(options: {
  readonly url: string
  readonly username?: string | undefined
  readonly password?: string | undefined
  readonly clientId: string
  readonly log: Logger
  readonly deps: Clock
}): Broker {
  const { url, log, deps } = options
  const parsed = parseBrokerUrl(url)
  if ('fault' in parsed) throw new ConfigError([`BROKER_URL: ${parsed.fault}`])
  const { address } = parsed
  return address.kind === 'file' ? openEmbedded({ path: address.path, deps, log }) : openKafka(options)
}
