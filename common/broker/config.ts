import * as v from 'valibot'
import type { Environment } from '../service/config.ts'
import { fileUrl } from '../service/file-url.ts'
import { type Credentials, parseBrokerUrl } from './broker-url.ts'

/** Which broker, and as whom: what `openBroker` needs of a service's configuration. */
export interface BrokerConfig extends Credentials {
  readonly url: string
}

/** What every service reads about its broker. */
export const brokerEntries = {
  BROKER_URL: v.optional(v.string()),
  BROKER_USERNAME: v.optional(v.string()),
  BROKER_PASSWORD: v.optional(v.string()),
}

/** What is wrong with them, as a line for the operator. */
export function brokerFault({ BROKER_URL, BROKER_USERNAME, BROKER_PASSWORD }: Environment): string | undefined {
  if (BROKER_URL === undefined) return undefined
  const parsed = parseBrokerUrl(BROKER_URL, { username: BROKER_USERNAME, password: BROKER_PASSWORD })
  return 'fault' in parsed ? parsed.fault : undefined
}

/** Without a URL the broker is a file in `dataDir`. */
export function resolveBrokerConfig(
  values: v.InferOutput<v.ObjectSchema<typeof brokerEntries, undefined>>,
  dataDir: string,
): BrokerConfig {
  return {
    url: values.BROKER_URL ?? fileUrl(dataDir, 'broker.db'),
    username: values.BROKER_USERNAME,
    password: values.BROKER_PASSWORD,
  }
}
