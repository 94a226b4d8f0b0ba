import { isIPv6 } from 'node:net'
import { filePath } from '../service/file-url.ts'

export interface KafkaAddress {
  readonly kind: 'kafka'
  /** At least one server of the cluster. An IPv6 address is without its brackets. */
  readonly brokers: readonly { readonly host: string; readonly port: number }[]
  readonly tls: boolean
  readonly sasl: (typeof saslMechanisms)[number] | undefined
}

type BrokerAddress = KafkaAddress | { readonly kind: 'file'; readonly path: string }

export interface Credentials {
  readonly username?: string | undefined
  readonly password?: string | undefined
}

const saslMechanisms = ['plain', 'scram-sha-256', 'scram-sha-512'] as const
const DEFAULT_PORT = 9092

/**
 * Parses `file:path` or `kafka://host:port,host:port?tls=true&sasl=scram-sha-512`. The WHATWG URL knows no host lists.
 * @returns the address, or the fault as a line for the operator. The line repeats no value, since some are secret.
 */
export function parseBrokerUrl(
  url: string,
  { username, password }: Credentials,
): { readonly address: BrokerAddress } | { readonly fault: string } {
  if (/^file:./.test(url)) return { address: { kind: 'file', path: filePath(url) } }
  const [, authority, query = ''] = /^kafka:\/\/([^/?#]*)\/?(?:\?([^#]*))?$/.exec(url) ?? []
  if (authority === undefined) return urlFault('must be file:path or kafka://host:port,host:port')
  if (authority.includes('@'))
    return urlFault('must not contain credentials: set BROKER_USERNAME and BROKER_PASSWORD instead')
  const brokers = authority.split(',').map(parseHost)
  if (!brokers.every((broker) => broker !== undefined))
    return urlFault(
      'every host must be a name, an IPv4 address or an IPv6 address in brackets, with a port up to 65535',
    )

  const given = new URLSearchParams(query)
  const twice = [...given.keys()].find((name) => given.getAll(name).length > 1)
  if (twice !== undefined) return urlFault(`has the parameter ${twice} more than once`)
  const { tls = 'false', sasl, ...others } = Object.fromEntries<string | undefined>(given)
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) return urlFault(`has an unknown parameter, ${unknown}: there are tls and sasl`)
  if (tls !== 'true' && tls !== 'false') return urlFault('tls must be true or false')
  const mechanism = saslMechanisms.find((each) => each === sasl)
  if (sasl !== undefined && !mechanism) return urlFault(`sasl must be one of ${saslMechanisms.join(', ')}`)

  const missing = [...(username ? [] : ['BROKER_USERNAME']), ...(password ? [] : ['BROKER_PASSWORD'])]
  if (mechanism && missing.length > 0)
    return { fault: `${missing.join(' and ')}: must be set, since BROKER_URL says sasl=` }
  // Credentials that nobody checks must not look as if they protected something.
  if (!mechanism && missing.length < 2)
    return urlFault('must say sasl=, since BROKER_USERNAME or BROKER_PASSWORD is set')
  return { address: { kind: 'kafka', brokers, tls: tls === 'true', sasl: mechanism } }
}

function urlFault(text: string): { readonly fault: string } {
  return { fault: `BROKER_URL: ${text}` }
}

function parseHost(text: string): { host: string; port: number } | undefined {
  const [, bracketed, name, digits = DEFAULT_PORT] = /^(?:\[([^[\]]+)\]|([\w.-]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = bracketed ?? name
  const port = Number(digits)
  if (host === undefined || (bracketed && !isIPv6(bracketed)) || port < 1 || port > 65535) return undefined
  return { host, port }
}
