import type { Context } from 'hono'
import { getConnInfo } from 'hono/bun'
import type { CommonConfig } from './config.ts'

/**
 * The address that a request comes from: the peer's, or, where the peer is a trusted proxy, the last address in
 * X-Forwarded-For that is not one.
 */
export function clientAddress(c: Context, trusted: CommonConfig['trustedProxies']): string {
  const forwarded = (c.req.header('x-forwarded-for') ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter(Boolean)
  const isTrusted = (address: string) => trusted.check(address, address.includes(':') ? 'ipv6' : 'ipv4')
  let address = peerAddress(c)
  while (isTrusted(address)) {
    const before = forwarded.pop()
    if (before === undefined) break
    address = before
  }
  return address
}

/** IPv4 in IPv6 form is written as IPv4. In a test without a server there is no peer. */
function peerAddress(c: Context): string {
  const address = c.env?.server ? getConnInfo(c).remote.address : undefined
  return (address ?? 'unknown').replace(/^::ffff:(?=\d+\.)/, '')
}
