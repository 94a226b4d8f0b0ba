import {
  type CommonConfig,
  commonEntries,
  dataFile,
  type Environment,
  HttpUrl,
  readConfig,
  settle,
  storeUrl,
} from '@posta/common/service/config.ts'
import * as v from 'valibot'
import { PrivateKeySet } from './accounts/keys.ts'

export interface GatewayConfig extends CommonConfig {
  readonly port: number
  readonly databaseUrl: string
  readonly databaseAuthToken: string | undefined
  /** Undefined: the public API, its mirror, the snapshot. `bundled:`: the snapshot alone. */
  readonly ratesUrl: string | undefined
  readonly tokenKeys: PrivateKeySet | undefined
  /** Where monitor tells of its audit chains and takes checkpoints of them. */
  readonly auditUrl: string
}

const entries = {
  ...commonEntries,
  DATABASE_URL: v.optional(storeUrl('file:', 'libsql://', 'http://', 'https://')),
  DATABASE_AUTH_TOKEN: v.optional(v.string()),
  RATES_URL: v.optional(
    v.union([v.literal('bundled:'), HttpUrl], 'must be bundled: or a URL that begins with http:// or https://'),
  ),
  TOKEN_KEYS: v.optional(v.pipe(v.string(), v.parseJson(undefined, 'must be JSON: a private JWK set'), PrivateKeySet)),
  AUDIT_URL: v.optional(HttpUrl),
}

/** @throws ConfigError with every fault. */
export function readGatewayConfig(environment: Environment): GatewayConfig {
  const values = readConfig(entries, environment)
  const common = settle(values)
  return {
    ...common,
    port: values.GATEWAY_PORT,
    databaseUrl: values.DATABASE_URL ?? dataFile(values.DATA_DIR, 'gateway.db'),
    databaseAuthToken: values.DATABASE_AUTH_TOKEN,
    ratesUrl: values.RATES_URL,
    tokenKeys: values.TOKEN_KEYS,
    auditUrl: values.AUDIT_URL ?? `${common.monitorUrl}/audit`,
  }
}
