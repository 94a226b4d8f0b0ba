import { isIPv4, isIPv6 } from 'node:net'

/**
 * The networks that count as one client, from the narrowest to the widest: an IPv4 address by itself, also where it is written
 * as IPv6; of an IPv6 address its /64, /56 and /48, since a client is given one of these as a whole. A text that is no address
 * is a network of its own.
 * @example
 * networksOf('2001:db8:1:234::9') // ['2001:db8:1:234::/64', '2001:db8:1:200::/56', '2001:db8:1::/48']
 */
export function networksOf(address: string): readonly [string, ...string[]] {
  const parsed = parse(address)
  if (!Array.isArray(parsed)) return [parsed ?? address]
  return [prefixOf(parsed, 64), prefixOf(parsed, 56), prefixOf(parsed, 48)]
}

/** The narrowest of `networksOf`. */
export const networkOf = (address: string): string => networksOf(address)[0]

/**
 * The client's network as events name it: the /24 of an IPv4 address, the /48 of an IPv6 one; undefined for a text that is no
 * address. It can be looked up and blocked, and stands for no single person.
 */
export function eventNetwork(address: string): string | undefined {
  const parsed = parse(address)
  if (Array.isArray(parsed)) return prefixOf(parsed, 48)
  return parsed?.replace(/\d+$/, '0/24')
}

/** An IPv4 address as text, an IPv6 one as its eight groups. */
function parse(address: string): string | number[] | undefined {
  if (isIPv4(address)) return address
  const [text = ''] = address.split('%')
  if (!isIPv6(text)) return undefined
  const groups = groupsOf(text)
  const [sixth = 0, seventh = 0, eighth = 0] = groups.slice(5)
  const isMapped = sixth === 0xffff && groups.slice(0, 5).every((group) => group === 0)
  return isMapped ? dotted(seventh, eighth) : groups
}

const dotted = (high: number, low: number) => [high >> 8, high & 255, low >> 8, low & 255].join('.')

function groupsOf(text: string): number[] {
  const inHex = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, a, b, c, d) =>
    [Number(a) * 256 + Number(b), Number(c) * 256 + Number(d)].map((group) => group.toString(16)).join(':'),
  )
  const [head = [], tail = []] = inHex.split('::', 2).map((part) => (part === '' ? [] : part.split(':')))
  const zeros = Array<string>(8 - head.length - tail.length).fill('0')
  return [...head, ...zeros, ...tail].map((group) => Number.parseInt(group, 16))
}

/** `bits` is 48, 56 or 64. */
function prefixOf(groups: readonly number[], bits: 48 | 56 | 64): string {
  const [a = 0, b = 0, c = 0, d = 0] = groups
  const fourth = bits === 64 ? d : bits === 56 ? d & 0xff00 : 0
  return `${[a, b, c, ...(fourth === 0 ? [] : [fourth])].map((group) => group.toString(16)).join(':')}::/${bits}`
}
