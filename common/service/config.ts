import { BlockList, isIP } from 'node:net'
import { resolve } from 'node:path'
import * as v from 'valibot'
import { type ServiceName, serviceNames } from '../name.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** Configuration that cannot work: every fault, by variable, in one message. */
export class ConfigError extends Error {
  override name = 'ConfigError'
  constructor(faults: readonly string[], options?: ErrorOptions) {
    super(
      `The configuration is not valid:\n${faults.map((fault) => `  ${fault}`).join('\n')}\nSee .env.example for every variable.`,
      options,
    )
  }
}

/**
 * The configuration that the environment holds. A variable that is empty counts as absent.
 * @param contradiction says what no single entry can check, as a line of its own
 * @throws ConfigError with every fault. Values are not repeated, since some are secret.
 * @example
 * const { PORT } = readConfig({ PORT: v.optional(Port, '3000') }, process.env)
 */
export function readConfig<Entries extends v.ObjectEntries>(
  entries: Entries,
  environment: Environment,
  contradiction: (given: Environment) => string | undefined = () => undefined,
): v.InferOutput<v.ObjectSchema<Entries, undefined>> {
  const given = Object.fromEntries(Object.entries(environment).filter(([, text]) => text !== undefined && text !== ''))
  const checked = v.safeParse(v.object(entries), given)
  const faults = checked.issues?.map((issue) => `${String(issue.path?.[0]?.key)}: ${issue.message}`) ?? []
  const contradicting = contradiction(given)
  if (contradicting) faults.push(contradicting)
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

const listOf = (text: string) =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean)

const Origins = v.pipe(
  v.string(),
  v.transform(listOf),
  v.everyItem(
    (text) => URL.parse(text)?.origin === text.replace(/\/$/, ''),
    'must be a list of origins such as https://app.example.com, separated by commas',
  ),
  v.mapItems((text) => text.replace(/\/$/, '')),
)

const Proxies = v.pipe(
  v.string(),
  v.transform(listOf),
  v.everyItem(isNetwork, 'must be a list of addresses or networks such as 10.0.0.0/8, separated by commas'),
  v.transform((networks) => {
    const list = new BlockList()
    for (const network of networks) {
      const [address = '', bits] = network.split('/')
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4'
      list.addSubnet(address, bits === undefined ? (family === 'ipv6' ? 128 : 32) : Number(bits), family)
    }
    return list
  }),
)

function isNetwork(text: string): boolean {
  const [address = '', bits, ...rest] = text.split('/')
  const family = isIP(address)
  const width = family === 6 ? 128 : 32
  return family !== 0 && rest.length === 0 && (bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= width))
}

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

/** What every service reads. What is left out here follows from other values: see `resolveConfig`. */
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

/** What every service knows once the defaults that depend on other values are filled in. */
export interface CommonConfig {
  readonly host: string
  /** Where this service listens. 0: the system chooses. */
  readonly port: number
  /** Where each service is reached from outside. */
  readonly urls: Readonly<Record<ServiceName, string>>
  readonly dataDir: string
  readonly tokenIssuer: string
  readonly jwksUrl: string
  readonly allowedOrigins: readonly string[]
  readonly trustedProxies: BlockList
  readonly logLevel: CommonEntries['LOG_LEVEL']
  readonly production: boolean
}

/** Fills in what follows from other values. */
export function resolveConfig(name: ServiceName, values: CommonEntries): CommonConfig {
  const urlOf = (service: ServiceName) =>
    values[variable(service, 'URL')] ?? `http://${reachableHost(values.HOST)}:${values[portVariable(service)]}`
  const urls = { gateway: urlOf('gateway'), processor: urlOf('processor'), monitor: urlOf('monitor') }
  return {
    host: values.HOST,
    port: values[portVariable(name)],
    urls,
    dataDir: values.DATA_DIR,
    tokenIssuer: values.TOKEN_ISSUER ?? urls.gateway,
    jwksUrl: values.JWKS_URL ?? `${urls.gateway}/.well-known/jwks.json`,
    allowedOrigins: values.ALLOWED_ORIGINS ?? Object.values(urls).map((url) => new URL(url).origin),
    trustedProxies: values.TRUSTED_PROXIES,
    logLevel: values.LOG_LEVEL,
    production: values.NODE_ENV === 'production',
  }
}

/** An address that means "all of this machine's" is no address to call. */
function reachableHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return 'localhost'
  return host.includes(':') ? `[${host}]` : host
}
