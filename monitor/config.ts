import { type BrokerConfig, brokerEntries, brokerFault, resolveBrokerConfig } from '@posta/common/broker/config.ts'
import {
  type CommonConfig,
  commonEntries,
  type Environment,
  readConfig,
  resolveConfig,
} from '@posta/common/service/config.ts'
import { fileUrl } from '@posta/common/service/file-url.ts'
import { StoreUrl } from '@posta/common/storage/store-url.ts'
import * as v from 'valibot'

export interface MonitorConfig extends CommonConfig {
  readonly broker: BrokerConfig
  readonly storeUrl: string
}

const entries = { ...commonEntries, ...brokerEntries, MONITOR_STORE_URL: v.optional(StoreUrl) }

/** @throws ConfigError with every fault. */
export function readMonitorConfig(environment: Environment): MonitorConfig {
  const values = readConfig(entries, environment, brokerFault)
  return {
    ...resolveConfig('monitor', values),
    broker: resolveBrokerConfig(values, values.DATA_DIR),
    storeUrl: values.MONITOR_STORE_URL ?? fileUrl(values.DATA_DIR, 'monitor.db'),
  }
}
