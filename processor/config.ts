import { type BrokerConfig, brokerEntries, brokerFault, resolveBrokerConfig } from '@posta/common/broker/config.ts'
import { catalog, contracts, type OperationType, operationTypes } from '@posta/common/operations/catalog.ts'
import type { Contract, Limit } from '@posta/common/operations/contract.ts'
import { limits } from '@posta/common/operations/limits.ts'
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

/** What each operation's performer is given of the environment, by type. */
export type PerformerSettings = ReadonlyMap<OperationType, Readonly<Record<string, unknown>>>

export interface ProcessorConfig extends CommonConfig {
  readonly broker: BrokerConfig
  readonly storeUrl: string
  /** The bound of each limit, by its name, in the limit's units. */
  readonly bounds: ReadonlyMap<string, number>
  readonly settings: PerformerSettings
}

/** Every sum of amounts within a bound is a whole number below 2^53, also with one more amount added. */
const MAX_UNITS = 1e15

/** A decimal number of at most `digits` digits after the point, in units of 10^-digits. */
function bound({ digits, defaultBound }: Limit) {
  const max = new Big(MAX_UNITS).div(new Big(10).pow(digits))
  return v.optional(
    v.pipe(
      v.string(),
      v.regex(
        new RegExp(`^\\d{1,16}(?:\\.\\d{1,${Math.max(1, digits)}})?$`),
        'must be a decimal number such as 10000 or 99.50',
      ),
      v.transform((text) => new Big(text).times(new Big(10).pow(digits)).toNumber()),
      v.minValue(1, 'must be more than 0'),
      v.maxValue(MAX_UNITS, `must be at most ${max.toFixed()}`),
    ),
    defaultBound,
  )
}

const limitEntries: v.ObjectEntries = Object.fromEntries(limits.map((limit) => [limit.variable, bound(limit)]))
const settingEntries: v.ObjectEntries = Object.fromEntries(
  contracts.flatMap(({ settings = {} }) => Object.entries(settings)),
)

// What the catalog names comes first: spread last, a record of any names would hide the types of the others.
const entries = {
  ...settingEntries,
  ...limitEntries,
  ...commonEntries,
  ...brokerEntries,
  PROCESSOR_STORE_URL: v.optional(StoreUrl),
}

/** @throws ConfigError with every fault. */
export function readProcessorConfig(environment: Environment): ProcessorConfig {
  const values = readConfig(entries, environment, brokerFault)
  const byVariable: Readonly<Record<string, unknown>> = values
  return {
    ...resolveConfig('processor', values),
    broker: resolveBrokerConfig(values, values.DATA_DIR),
    storeUrl: values.PROCESSOR_STORE_URL ?? fileUrl(values.DATA_DIR, 'processor.db'),
    bounds: new Map(limits.map(({ name, variable }) => [name, v.parse(v.number(), byVariable[variable])])),
    settings: new Map(operationTypes.map((type) => [type, settingsOf(catalog[type], byVariable)])),
  }
}

/** The values of the variables that a contract names. */
function settingsOf({ settings = {} }: Contract, values: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.keys(settings).map((variable) => [variable, values[variable]]))
}
