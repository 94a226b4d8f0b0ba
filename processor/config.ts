import {
  type BrokerConfig,
  brokerContradiction,
  brokerEntries,
  resolveBrokerConfig,
} from '@posta/common/broker/config.ts'
import {
  type CommonConfig,
  commonEntries,
  type Environment,
  readConfig,
  resolveConfig,
} from '@posta/common/service/config.ts'
import { fileUrl } from '@posta/common/service/file-url.ts'
import { StoreUrl } from '@posta/common/storage/store-url.ts'
import Big from 'big.js'
import * as v from 'valibot'

export interface ProcessorConfig extends CommonConfig {
  readonly broker: BrokerConfig
  readonly storeUrl: string
  /** In 1e-8 USD. */
  readonly dailyLimitUsdE8: number
}

const MAX_DAILY_LIMIT_USD = 10_000_000

const entries = {
  ...commonEntries,
  ...brokerEntries,
  PROCESSOR_STORE_URL: v.optional(StoreUrl),
  // At most 1e15 in 1e-8 USD, which is below 2^53: sums within a limit are exact as numbers.
  DAILY_LIMIT_USD: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^\d{1,8}(?:\.\d{1,8})?$/, 'must be a decimal number such as 10000 or 99.50'),
      v.transform((text) => new Big(text).times(1e8).toNumber()),
      v.minValue(1, 'must be more than 0'),
      v.maxValue(MAX_DAILY_LIMIT_USD * 1e8, `must be at most ${MAX_DAILY_LIMIT_USD}`),
    ),
    '10000',
  ),
}

/** @throws ConfigError with every fault. */
export function readProcessorConfig(environment: Environment): ProcessorConfig {
  const values = readConfig(entries, environment, brokerContradiction)
  return {
    ...resolveConfig('processor', values),
    broker: resolveBrokerConfig(values, values.DATA_DIR),
    storeUrl: values.PROCESSOR_STORE_URL ?? fileUrl(values.DATA_DIR, 'processor.db'),
    dailyLimitUsdE8: values.DAILY_LIMIT_USD,
  }
}
