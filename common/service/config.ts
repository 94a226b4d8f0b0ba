import { BlockList, isIP } from 'node:net'
import { resolve } from 'node:path'
import * as v from 'valibot'
import { type ServiceName, serviceNames } from '../name.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** Configuration that cannot work. Its message has a line for each fault. */
export class ConfigError extends Error {
  override name = 'ConfigError'
  constructor(faults: readonly string[], options?: ErrorOptions) {
    const lines = faults.map((fault) => `  ${fault}`)
    super(['The configuration is not valid:', ...lines, 'See .env.example for every variable.'].join('\n'), options)
  }
}

/**
 * Reads a configuration from the environment. An empty variable counts as absent.
 * @param contradictions each says why values that are each valid do not fit together; undefined if they do
 * @throws ConfigError with every fault. It does not repeat values, since some are secret.
 * @example
 * const { PORT } = readConfig({ PORT: v.optional(Port, '3000') }, process.env)
 */
export function readConfig<Entries extends v.ObjectEntries>(
  entries: Entries,
  environment: Environment,
  ...contradictions: readonly ((given: Environment) => string | undefined)[]
): v.InferOutput<v.ObjectSchema<Entries, undefined>> {
  const given = Object.fromEntries(Object.entries(environment).filter(([, text]) => text !== undefined && text !== ''))
  const checked = v.safeParse(v.object(entries), given)
  const faults = checked.issues?.map((issue) => `${String(issue.path?.[0]?.key)}: ${issue.message}`) ?? []
  faults.push(...contradictions.flatMap((contradiction) => contradiction(given) ?? []))
  if (checked.success && faults.length === 0) return checked.output
  throw new ConfigError(faults)
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

const List = v.pipe(
  v.string(),
  v.transform((text) => text.split(',').flatMap((item) => item.trim() || [])),
)

const Origins = v.pipe(
  List,
  v.mapItems((text) => text.replace(/\/$/, '')),
  v.everyItem(
    (text) => URL.parse(text)?.origin === text,
    'must be a list of origins such as https://app.example.com, separated by commas',
  ),
)

const Proxies = v.pipe(
  List,
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const list = new BlockList()
    for (const network of dataset.value) {
      const [, address = '', bits] = /^([^/]*)(?:\/(\d{1,3}))?$/.exec(network) ?? []
      const width = isIP(address) === 6 ? 128 : 32
      if (!isIP(address) || Number(bits ?? 0) > width) {
        addIssue({ message: 'must be a list of addresses or networks such as 10.0.0.0/8, separated by commas' })
        return NEVER
      }
      list.addSubnet(address, Number(bits ?? width), width === 128 ? 'ipv6' : 'ipv4')
    }
    return list
  }),
)

const FIRST_PORT = 3000

/** `GATEWAY_PORT` and so on: where a service listens. */
export function portVariable<Name extends ServiceName>(name: Name) {
  return variable(name, 'PORT')
}

function variable<Name extends ServiceName, Suffix extends string>(name: Name, suffix: Suffix) {
  // `toUpperCase` forgets which string it was given.
  return `${name.toUpperCase()}_${suffix}` as `${Uppercase<Name>}_${Suffix}`
}

/** An entry for each service. */
function perService<Suffix extends string, Entry>(suffix: Suffix, entry: (index: number) => Entry) {
  const entries = serviceNames.map((name, index) => [variable(name, suffix), entry(index)])
  // `fromEntries` forgets the names of the keys.
  return Object.fromEntries(entries) as Record<`${Uppercase<ServiceName>}_${Suffix}`, Entry>
}

/** What every service reads. Defaults that depend on other values are in `resolveConfig`. */
export const commonEntries = {
  HOST: v.optional(v.pipe(v.string(), v.regex(/^[\w.:-]+$/, 'must be a host name or an address')), '127.0.0.1'),
  ...perService('PORT', (index) => v.optional(Port, String(FIRST_PORT + index))),
  DATA_DIR: v.optional(
    v.pipe(
      v.string(),
      v.transform((path) => resolve(path)),
    ),
    resolve(REPOSITORY_ROOT, 'data'),
  ),
  ...perService('URL', () => v.optional(HttpUrl)),
  TOKEN_ISSUER: v.optional(HttpUrl),
  JWKS_URL: v.optional(HttpUrl),
  ALLOWED_ORIGINS: v.optional(Origins),
  TRUSTED_PROXIES: v.optional(Proxies, ''),
  METRICS_TOKEN: v.optional(
    v.pipe(v.string(), v.regex(/^[\w~+/.-]{16,256}=*$/, 'must have at least 16 letters, digits or -._~+/')),
  ),
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

type CommonEntries = v.InferOutput<v.ObjectSchema<typeof commonEntries, undefined>>
export type CommonConfig = Readonly<ReturnType<typeof resolveConfig>>

/** What every service knows: the values, with the defaults that depend on other values. */
export function resolveConfig(name: ServiceName, values: CommonEntries) {
  const urlOf = (service: ServiceName) =>
    values[variable(service, 'URL')] ?? `http://${reachableHost(values.HOST)}:${values[portVariable(service)]}`
  const urls = { gateway: urlOf('gateway'), processor: urlOf('processor'), monitor: urlOf('monitor') }
  return {
    host: values.HOST,
    /** Where this service listens. 0: the system chooses. */
    port: values[portVariable(name)],
    /** Where each service is reached from outside. */
    urls,
    dataDir: values.DATA_DIR,
    tokenIssuer: values.TOKEN_ISSUER ?? urls.gateway,
    jwksUrl: values.JWKS_URL ?? `${urls.gateway}/.well-known/jwks.json`,
    allowedOrigins: values.ALLOWED_ORIGINS ?? Object.values(urls).map((url) => new URL(url).origin),
    trustedProxies: values.TRUSTED_PROXIES,
    /** What a reader of `/metrics` must show. Undefined: nothing. */
    metricsToken: values.METRICS_TOKEN,
    logLevel: values.LOG_LEVEL,
    production: values.NODE_ENV === 'production',
  }
}

/** `0.0.0.0` and `::` mean every address of this machine. They can be listened on, but not called. */
function reachableHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return 'localhost'
  return host.includes(':') ? `[${host}]` : host
}
