import type { Context } from 'hono'
import { getConnInfo } from 'hono/bun'
import type { CommonConfig } from './config.ts'

/**
 * The address that a request comes from: the peer's. If the peer is a trusted proxy, the last address in X-Forwarded-For
 * that is not a trusted proxy.
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

/** An IPv4 address in IPv6 form is written as IPv4. A test without a server has no peer. */
function peerAddress(c: Context): string {
  const address = c.env?.server ? getConnInfo(c).remote.address : undefined
  return (address ?? 'unknown').replace(/^::ffff:(?=\d+\.)/, '')
}
