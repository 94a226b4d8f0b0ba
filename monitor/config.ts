import {
  type CommonConfig,
  commonEntries,
  dataFile,
  type Environment,
  readConfig,
  StoreUrl,
  settle,
} from '@posta/common/service/config.ts'
import * as v from 'valibot'

export interface MonitorConfig extends CommonConfig {
  readonly port: number
  readonly storeUrl: string
}

const entries = {
  ...commonEntries,
  MONITOR_STORE_URL: v.optional(StoreUrl),
}

/** @throws ConfigError with every fault. */
export function readMonitorConfig(environment: Environment): MonitorConfig {
  const values = readConfig(entries, environment)
  return {
    ...settle(values),
    port: values.MONITOR_PORT,
    storeUrl: values.MONITOR_STORE_URL ?? dataFile(values.DATA_DIR, 'monitor.db'),
  }
}
