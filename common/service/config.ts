import { resolve } from 'node:path'
import * as v from 'valibot'

export type Environment = Readonly<Record<string, string | undefined>>

/** Configuration that cannot work: every fault, by variable, in one message. */
export class ConfigError extends Error {
  override name = 'ConfigError'
  constructor(faults: readonly string[]) {
    super(
      `The configuration is not valid:\n${faults.map((fault) => `  ${fault}`).join('\n')}\nSee .env.example for every variable.`,
    )
  }
}

/**
 * What `schema` makes of the environment; a variable that is empty counts as absent.
 * @throws ConfigError with every fault. Values are not repeated, since some are secret.
 */
export function readConfig<Entries extends v.ObjectEntries>(
  entries: Entries,
  environment: Environment,
): v.InferOutput<v.ObjectSchema<Entries, undefined>> {
  const given = Object.fromEntries(Object.entries(environment).filter(([, text]) => text !== undefined && text !== ''))
  const checked = v.safeParse(v.object(entries), given)
  if (checked.success) return checked.output
  throw new ConfigError(checked.issues.map((issue) => `${String(issue.path?.[0]?.key)}: ${issue.message}`))
}

export const REPOSITORY_ROOT = resolve(import.meta.dir, '../..')

export const Port = v.pipe(
  v.string(),
  v.regex(/^\d{1,5}$/, 'must be a port number, 0 to 65535'),
  v.transform(Number),
  v.maxValue(65535, 'must be a port number, 0 to 65535'),
)

export const HttpUrl = v.pipe(
  v.string(),
  v.check(
    (text) => ['http:', 'https:'].includes(URL.parse(text)?.protocol ?? ''),
    'must be a URL that begins with http:// or https://',
  ),
  v.transform((text) => text.replace(/\/+$/, '')),
)

/** `file:` URLs name a database on this machine; the path may be relative to the working directory. */
export function storeUrl(...protocols: readonly string[]) {
  return v.pipe(
    v.string(),
    v.check(
      (text) => protocols.some((protocol) => text.startsWith(protocol) && text.length > protocol.length),
      `must begin with ${protocols.join(' or ')}`,
    ),
  )
}

/** The path of a `file:` URL, absolute. */
export function filePath(url: string): string {
  return resolve(url.replace(/^file:(?:\/\/)?/, ''))
}

/** What every service reads. URLs and files without a value get theirs from HOST, the ports and DATA_DIR: see `settle`. */
export const commonEntries = {
  HOST: v.optional(v.pipe(v.string(), v.regex(/^[\w.:-]+$/, 'must be a host name or an address')), '127.0.0.1'),
  GATEWAY_PORT: v.optional(Port, '3000'),
  PROCESSOR_PORT: v.optional(Port, '3001'),
  MONITOR_PORT: v.optional(Port, '3002'),
  DATA_DIR: v.optional(
    v.pipe(
      v.string(),
      v.transform((path) => resolve(path)),
    ),
    resolve(REPOSITORY_ROOT, 'data'),
  ),
  BROKER_URL: v.optional(storeUrl('file:', 'kafka://')),
  BROKER_USERNAME: v.optional(v.string()),
  BROKER_PASSWORD: v.optional(v.string()),
  GATEWAY_URL: v.optional(HttpUrl),
  PROCESSOR_URL: v.optional(HttpUrl),
  MONITOR_URL: v.optional(HttpUrl),
  TOKEN_ISSUER: v.optional(HttpUrl),
  JWKS_URL: v.optional(HttpUrl),
  ALLOWED_ORIGINS: v.optional(v.string()),
  TRUSTED_PROXIES: v.optional(v.string(), ''),
  LOG_LEVEL: v.optional(
    v.picklist(
      ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'],
      'must be fatal, error, warn, info, debug, trace or silent',
    ),
    'info',
  ),
  NODE_ENV: v.optional(
    v.picklist(['development', 'production', 'test'], 'must be development, production or test'),
    'development',
  ),
}
