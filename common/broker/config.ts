import * as v from 'valibot'
import type { Environment } from '../service/config.ts'
import { fileUrl } from '../service/file-url.ts'
import { credentialsFault, parseBrokerUrl } from './broker-url.ts'

/** Which broker, and as whom: what `openBroker` needs of a service's configuration. */
export interface BrokerConfig {
  readonly url: string
  readonly username: string | undefined
  readonly password: string | undefined
}

/** What every service reads of its broker. */
export const brokerEntries = {
  BROKER_URL: v.optional(
    v.pipe(
      v.string(),
      v.rawCheck(({ dataset, addIssue }) => {
        const parsed = dataset.typed ? parseBrokerUrl(dataset.value) : undefined
        if (parsed && 'fault' in parsed) addIssue({ message: parsed.fault })
      }),
    ),
  ),
  BROKER_USERNAME: v.optional(v.string()),
  BROKER_PASSWORD: v.optional(v.string()),
}

/** Why a broker's URL that is valid does not fit the credentials; undefined where it does. */
export function brokerContradiction({ BROKER_URL, BROKER_USERNAME, BROKER_PASSWORD }: Environment): string | undefined {
  const parsed = BROKER_URL === undefined ? undefined : parseBrokerUrl(BROKER_URL)
  if (!parsed || 'fault' in parsed) return undefined
  return credentialsFault(parsed.address, { username: BROKER_USERNAME, password: BROKER_PASSWORD })
}

/** Without a URL: a file in DATA_DIR. */
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
