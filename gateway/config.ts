import { type BrokerConfig, brokerEntries, brokerFault, resolveBrokerConfig } from '@posta/common/broker/config.ts'
import { catalog, contracts, type OperationType, operationTypes } from '@posta/common/operations/catalog.ts'
import type { Contract } from '@posta/common/operations/contract.ts'
import {
  type CommonConfig,
  commonEntries,
  type Environment,
  HttpUrl,
  readConfig,
  resolveConfig,
} from '@posta/common/service/config.ts'
import { fileUrl } from '@posta/common/service/file-url.ts'
import * as v from 'valibot'
import { KeyEncryptionKeys } from './accounts/key-encryption.ts'
import { PrivateKeySet } from './accounts/key-set.ts'
import { type Quotas, quotaEntries, readQuotas } from './quotas.ts'

export interface GatewayConfig extends CommonConfig {
  readonly broker: BrokerConfig
  readonly database: { readonly url: string; readonly authToken: string | undefined }
  // example {
  /** Undefined: the public API, its mirror, the snapshot. `bundled:`: the snapshot alone. */
  readonly ratesUrl: string | undefined
  // }
  /** Undefined: the keys are rows of the database. */
  readonly tokenKeys: PrivateKeySet | undefined
  /** What those rows are encrypted under. Empty: they are not. */
  readonly keyEncryptionKeys: v.InferOutput<typeof KeyEncryptionKeys>
  /** Where monitor shows its audit chains and accepts checkpoints of them. */
  readonly auditUrl: string
  /** The types of the catalog whose required variable is set. */
  readonly offered: ReadonlySet<OperationType>
  readonly quotas: Quotas
  /** Of each IPv4 address, or IPv6 /64. */
  readonly registrationsPerHour: number
}

/** The variables that an operation requires to be offered. What they hold is for its performer. */
const requiredEntries: v.ObjectEntries = Object.fromEntries(
  contracts.flatMap(({ requires, settings = {} }) => {
    const entry = requires === undefined ? undefined : settings[requires]
    return requires === undefined || !entry ? [] : [[requires, entry]]
  }),
)

// The required ones come first: spread last, a record of any names would hide the types of the others.
const entries = {
  ...requiredEntries,
  ...commonEntries,
  ...brokerEntries,
  DATABASE_URL: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^(?:file:|libsql:\/\/|https?:\/\/)./, 'must begin with file: or libsql:// or http:// or https://'),
    ),
  ),
  DATABASE_AUTH_TOKEN: v.optional(v.string()),
  // example {
  RATES_URL: v.optional(
    v.union([v.literal('bundled:'), HttpUrl], 'must be bundled: or a URL that begins with http:// or https://'),
  ),
  // }
  TOKEN_KEYS: v.optional(v.pipe(v.string(), v.parseJson(undefined, 'must be JSON: a private JWK set'), PrivateKeySet)),
  KEY_ENCRYPTION_KEY: v.optional(KeyEncryptionKeys),
  AUDIT_URL: v.optional(HttpUrl),
  ...quotaEntries,
  REGISTRATIONS_PER_HOUR: v.optional(
    v.pipe(v.string(), v.regex(/^[1-9]\d{0,5}$/, 'must be a number from 1 to 999999'), v.transform(Number)),
    '100',
  ),
}

/** @throws ConfigError with every fault. */
export function readGatewayConfig(environment: Environment): GatewayConfig {
  const values = readConfig(entries, environment, brokerFault, plainKeysFault)
  const common = resolveConfig('gateway', values)
  return {
    ...common,
    broker: resolveBrokerConfig(values, values.DATA_DIR),
    database: {
      url: values.DATABASE_URL ?? fileUrl(values.DATA_DIR, 'gateway.db'),
      authToken: values.DATABASE_AUTH_TOKEN,
    },
    ratesUrl: values.RATES_URL, // example
    tokenKeys: values.TOKEN_KEYS,
    keyEncryptionKeys: values.KEY_ENCRYPTION_KEY ?? [],
    auditUrl: values.AUDIT_URL ?? `${common.urls.monitor}/audit`,
    offered: new Set(operationTypes.filter((type) => isOffered(catalog[type], values))),
    quotas: readQuotas(values),
    registrationsPerHour: values.REGISTRATIONS_PER_HOUR,
  }
}

/**
 * Signing keys in plain text are for a file, which only its owner reads, as only they read the environment. A server has
 * administrators, backups and a network of its own.
 */
function plainKeysFault(given: Environment): string | undefined {
  const isRemote = given.DATABASE_URL !== undefined && !given.DATABASE_URL.startsWith('file:')
  if (given.NODE_ENV !== 'production' || !isRemote || given.TOKEN_KEYS || given.KEY_ENCRYPTION_KEY) return undefined
  return 'KEY_ENCRYPTION_KEY: must be set in production where DATABASE_URL names a server, unless TOKEN_KEYS is. `openssl rand -base64 32` makes one'
}

function isOffered({ requires }: Contract, values: Readonly<Record<string, unknown>>): boolean {
  return requires === undefined || values[requires] !== undefined
}
