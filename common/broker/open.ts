import type { Clock } from '../service/clock.ts'
import { ConfigError } from '../service/config.ts'
import type { Deps } from '../service/deps.ts'
import type { Logger } from '../service/log.ts'
import type { Broker } from './broker.ts'
import { parseBrokerUrl } from './broker-url.ts'
import type { BrokerConfig } from './config.ts'
import { openEmbedded } from './embedded/embedded.ts'
import { openKafka } from './kafka/kafka.ts'

/** What a service takes from outside. With an `openBroker` it is that which opens the service's broker. */
export interface ServiceDeps extends Deps {
  readonly openBroker?: typeof openBroker
}

/**
 * The broker that `url` names: embedded in a file, or on Kafka. Opening never connects.
 * @param options.clientId the process, as Kafka's logs and quotas name it
 * @throws ConfigError where the URL or the credentials cannot work, or the file cannot be made
 */
export function openBroker(
  options: BrokerConfig & { readonly clientId: string; readonly log: Logger; readonly deps: Clock },
): Broker {
  const parsed = parseBrokerUrl(options.url, options)
  if ('fault' in parsed) throw new ConfigError([parsed.fault])
  const { address } = parsed
  return address.kind === 'file' ? openEmbedded({ ...options, path: address.path }) : openKafka({ ...options, address })
}
