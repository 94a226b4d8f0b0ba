import { isIPv6 } from 'node:net'
import { filePath } from '../service/file-url.ts'

export const saslMechanisms = ['plain', 'scram-sha-256', 'scram-sha-512'] as const
export type SaslMechanism = (typeof saslMechanisms)[number]

export interface KafkaAddress {
  readonly kind: 'kafka'
  /** Where to ask for the cluster, at least one. An IPv6 address is without its brackets. */
  readonly brokers: readonly { readonly host: string; readonly port: number }[]
  readonly tls: boolean
  readonly sasl: SaslMechanism | undefined
}

export type BrokerAddress = KafkaAddress | { readonly kind: 'file'; readonly path: string }

const DEFAULT_PORT = 9092

/**
 * What `BROKER_URL` names: `file:path` or `kafka://host:port,host:port?tls=true&sasl=scram-sha-512`, or why it names
 * nothing, as what comes after "BROKER_URL:" and without a value that may be secret. The WHATWG URL knows no host lists.
 */
export function parseBrokerUrl(url: string): { readonly address: BrokerAddress } | { readonly fault: string } {
  if (/^file:./.test(url)) return { address: { kind: 'file', path: filePath(url) } }
  const [, authority, query = ''] = /^kafka:\/\/([^/?#]*)\/?(?:\?([^#]*))?$/.exec(url) ?? []
  if (authority === undefined) return { fault: 'must be file:path or kafka://host:port,host:port' }
  if (authority.includes('@'))
    return { fault: 'must not contain credentials: set BROKER_USERNAME and BROKER_PASSWORD instead' }
  const brokers = authority.split(',').map(parseHost)
  if (!brokers.every((broker) => broker !== undefined))
    return {
      fault: 'every host must be a name, an IPv4 address or an IPv6 address in brackets, with a port up to 65535',
    }

  const given = new URLSearchParams(query)
  const twice = [...given.keys()].find((name) => given.getAll(name).length > 1)
  if (twice !== undefined) return { fault: `has the parameter ${twice} more than once` }
  const { tls = 'false', sasl, ...others } = Object.fromEntries<string | undefined>(given)
  const [unknown] = Object.keys(others)
  if (unknown !== undefined) return { fault: `has an unknown parameter, ${unknown}: there are tls and sasl` }
  if (tls !== 'true' && tls !== 'false') return { fault: 'tls must be true or false' }
  const mechanism = saslMechanisms.find((each) => each === sasl)
  if (sasl !== undefined && !mechanism) return { fault: `sasl must be one of ${saslMechanisms.join(', ')}` }
  return { address: { kind: 'kafka', brokers, tls: tls === 'true', sasl: mechanism } }
}

/** Why the address and the credentials do not fit together, as a line of its own; undefined where they do. */
export function credentialsFault(
  address: BrokerAddress,
  { username, password }: { readonly username?: string | undefined; readonly password?: string | undefined },
): string | undefined {
  if (address.kind === 'file') return undefined
  if (address.sasl) {
    const missing = [...(username ? [] : ['BROKER_USERNAME']), ...(password ? [] : ['BROKER_PASSWORD'])]
    return missing.length > 0 ? `${missing.join(' and ')}: must be set, since BROKER_URL says sasl=` : undefined
  }
  // Credentials that nobody would check must not look as if they protected something.
  return username || password
    ? 'BROKER_URL: must say sasl=, since BROKER_USERNAME or BROKER_PASSWORD is set'
    : undefined
}

function parseHost(text: string): { host: string; port: number } | undefined {
  const [, bracketed, name, digits] = /^(?:\[([^[\]]+)\]|([\w.-]+))(?::(\d{1,5}))?$/.exec(text) ?? []
  const host = bracketed ?? name
  const port = digits === undefined ? DEFAULT_PORT : Number(digits)
  if (host === undefined || (bracketed !== undefined && !isIPv6(bracketed)) || port < 1 || port > 65535)
    return undefined
  return { host, port }
}
