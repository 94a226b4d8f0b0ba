import { BlockList, isIP } from 'node:net'
import { resolve } from 'node:path'
import * as v from 'valibot'
import { credentialsFault, parseBrokerUrl } from '../broker/broker-url.ts'

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
 * What `schema` makes of the environment; a variable that is empty counts as absent.
 * @throws ConfigError with every fault. Values are not repeated, since some are secret.
 */
export function readConfig<Entries extends v.ObjectEntries>(
  entries: Entries,
  environment: Environment,
): v.InferOutput<v.ObjectSchema<Entries, undefined>> {
  const given = Object.fromEntries(Object.entries(environment).filter(([, text]) => text !== undefined && text !== ''))
  const checked = v.safeParse(v.object(entries), given)
  const contradiction = brokerContradiction(given)
  if (checked.success && !contradiction) return checked.output
  const faults = checked.issues?.map((issue) => `${String(issue.path?.[0]?.key)}: ${issue.message}`) ?? []
  throw new ConfigError(contradiction ? [...faults, contradiction] : faults)
}

/** Why a URL that can work by itself does not with the credentials that are given. */
function brokerContradiction({ BROKER_URL, BROKER_USERNAME, BROKER_PASSWORD }: Environment): string | undefined {
  const parsed = BROKER_URL === undefined ? undefined : parseBrokerUrl(BROKER_URL)
  if (!parsed || 'fault' in parsed) return undefined
  return credentialsFault(parsed.address, { username: BROKER_USERNAME, password: BROKER_PASSWORD })
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

/** Where processor and monitor keep theirs. The database is named in the URL, since a server has several. */
export const StoreUrl = v.pipe(
  v.string(),
  v.regex(
    /^(?:file:.|mongodb:\/\/[^/?#]+\/[^/?#]+(?:\?|$))/,
    'must be file:path or name a server and a database, as in mongodb://host:port/name',
  ),
)

/** The path of a `file:` URL, absolute. */
export function filePath(url: string): string {
  return resolve(url.replace(/^file:(?:\/\/)?/, ''))
}

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
  GATEWAY_URL: v.optional(HttpUrl),
  PROCESSOR_URL: v.optional(HttpUrl),
  MONITOR_URL: v.optional(HttpUrl),
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
  readonly dataDir: string
  readonly brokerUrl: string
  readonly brokerUsername: string | undefined
  readonly brokerPassword: string | undefined
  readonly gatewayUrl: string
  readonly processorUrl: string
  readonly monitorUrl: string
  readonly tokenIssuer: string
  readonly jwksUrl: string
  readonly allowedOrigins: readonly string[]
  readonly trustedProxies: BlockList
  readonly logLevel: CommonEntries['LOG_LEVEL']
  readonly production: boolean
}

/** Fills in what follows from other values. */
export function settle(values: CommonEntries): CommonConfig {
  const urlAt = (port: number) => `http://${reachableHost(values.HOST)}:${port}`
  const gatewayUrl = values.GATEWAY_URL ?? urlAt(values.GATEWAY_PORT)
  const processorUrl = values.PROCESSOR_URL ?? urlAt(values.PROCESSOR_PORT)
  const monitorUrl = values.MONITOR_URL ?? urlAt(values.MONITOR_PORT)
  return {
    host: values.HOST,
    dataDir: values.DATA_DIR,
    brokerUrl: values.BROKER_URL ?? dataFile(values.DATA_DIR, 'broker.db'),
    brokerUsername: values.BROKER_USERNAME,
    brokerPassword: values.BROKER_PASSWORD,
    gatewayUrl,
    processorUrl,
    monitorUrl,
    tokenIssuer: values.TOKEN_ISSUER ?? gatewayUrl,
    jwksUrl: values.JWKS_URL ?? `${gatewayUrl}/.well-known/jwks.json`,
    allowedOrigins: values.ALLOWED_ORIGINS ?? [gatewayUrl, processorUrl, monitorUrl].map((url) => new URL(url).origin),
    trustedProxies: values.TRUSTED_PROXIES,
    logLevel: values.LOG_LEVEL,
    production: values.NODE_ENV === 'production',
  }
}

export function dataFile(dataDir: string, name: string): string {
  return `file:${resolve(dataDir, name)}`
}

/** An address that means "all of this machine's" is no address to call. */
function reachableHost(host: string): string {
  if (host === '0.0.0.0' || host === '::') return 'localhost'
  return host.includes(':') ? `[${host}]` : host
}
