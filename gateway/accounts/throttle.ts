import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { LRUCache } from 'lru-cache'

/**
 * Runs `check`, which resolves to something falsy where the password is wrong, and resolves to the same. Refuses while
 * there were too many wrong passwords for this email or from this IP address. An attempt counts from its start, so a burst
 * of parallel attempts gets no further than the same attempts in a row. It stops counting if the password is right, or if
 * `check` rejects. A right password also clears what was counted for the email.
 *
 * The counts are kept in this process alone, and bounded: with very many, the oldest are forgotten.
 * @throws Problem `too-many-requests`
 */
export type Throttle = <Result>(
  attempt: { readonly email: string; readonly address: string },
  check: () => Promise<Result>,
) => Promise<Result>

interface Limit {
  /** How many wrong passwords may follow each other at once. After that one more is allowed every `refillMs`. */
  readonly burst: number
  readonly refillMs: number
}

const PER_EMAIL: Limit = { burst: 10, refillMs: 60_000 }
/** Many people may share an address. */
const PER_ADDRESS: Limit = { burst: 100, refillMs: 6_000 }
const MAX_REMEMBERED = 50_000

export function createThrottle(deps: Pick<Deps, 'monotonicMs'>): Throttle {
  const emails = createCounter(PER_EMAIL, deps)
  const addresses = createCounter(PER_ADDRESS, deps)

  return async ({ email, address }, check) => {
    const network = networkOf(address)
    const waitMs = Math.max(emails.waitMs(email), addresses.waitMs(network))
    if (waitMs > 0)
      throw new Problem('too-many-requests', 'Too many failed attempts.', { retryAfterS: Math.ceil(waitMs / 1000) })
    emails.add(email, 1)
    addresses.add(network, 1)
    let isWrong = false
    try {
      const result = await check()
      isWrong = !result
      if (result) emails.clear(email)
      return result
    } finally {
      if (!isWrong) {
        emails.add(email, -1)
        addresses.add(network, -1)
      }
    }
  }
}

/** Counts that fall by one every `refillMs`. A count is stored as the time at which it will be zero. */
function createCounter({ burst, refillMs }: Limit, deps: Pick<Deps, 'monotonicMs'>) {
  const zeroAt = new LRUCache<string, number>({ max: MAX_REMEMBERED })
  const zeroAtMs = (key: string) => Math.max(deps.monotonicMs(), zeroAt.get(key) ?? 0)
  return {
    /** Ms until one more is allowed. Zero or less: it is allowed now. */
    waitMs: (key: string) => zeroAtMs(key) - deps.monotonicMs() + refillMs - burst * refillMs,
    add(key: string, count: 1 | -1) {
      const atMs = zeroAtMs(key) + count * refillMs
      // A count of zero is not stored: attempts whose check rejects are cheap, and must not push out the others.
      if (atMs > deps.monotonicMs()) zeroAt.set(key, atMs)
      else zeroAt.delete(key)
    },
    clear: (key: string) => zeroAt.delete(key),
  }
}

/** The network that counts as one client: an IPv4 address, or the /64 of an IPv6 one, which its client owns as a whole. */
export function networkOf(address: string): string {
  const mapped = /^::ffff:([\d.]+)$/i.exec(address)?.[1]
  if (mapped) return mapped
  if (!address.includes(':')) return address
  const [head = '', tail] = address.toLowerCase().split('::', 2)
  const before = head === '' ? [] : head.split(':')
  const after = tail ? tail.split(':') : []
  const zeros = Array<string>(tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length)).fill('0')
  return [...before, ...zeros, ...after]
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(':')
}
