import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { LRUCache } from 'lru-cache'

/** Who tries a password, and whose. */
interface Attempt {
  readonly email: string
  /** The client's IP address. */
  readonly address: string
}

/**
 * Runs `check`, which resolves to whether the password is right, unless there were too many wrong ones for this email or
 * from this address. An attempt counts from its beginning, so a burst of parallel ones gets no further than one after
 * another would; it is taken back if it is right or comes to no answer. A right one clears the email.
 *
 * What is counted is of this process alone and bounded: the oldest of very many is forgotten.
 * @throws Problem `too-many-requests`
 */
export type Throttle = (attempt: Attempt, check: () => Promise<boolean>) => Promise<boolean>

interface Limit {
  /** So many wrong ones in a row; after that, one more each `refillMs`. */
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
    let right: boolean | undefined
    try {
      right = await check()
      return right
    } finally {
      if (right !== false) {
        emails.add(email, -1)
        addresses.add(network, -1)
      }
      if (right) emails.clear(email)
    }
  }
}

/** Counts that drain by one each `refillMs`; each is kept as the time at which it will have drained. */
function createCounter({ burst, refillMs }: Limit, deps: Pick<Deps, 'monotonicMs'>) {
  const drained = new LRUCache<string, number>({ max: MAX_REMEMBERED })
  const drainedAtMs = (key: string) => Math.max(deps.monotonicMs(), drained.get(key) ?? 0)
  return {
    /** How long until one more fits. */
    waitMs: (key: string) => drainedAtMs(key) - deps.monotonicMs() + refillMs - burst * refillMs,
    add(key: string, count: 1 | -1) {
      const atMs = drainedAtMs(key) + count * refillMs
      // What counts nothing takes no place: attempts that come to no answer are cheap, and must not push out the others.
      if (atMs > deps.monotonicMs()) drained.set(key, atMs)
      else drained.delete(key)
    },
    clear: (key: string) => drained.delete(key),
  }
}

/** An IPv6 client owns a whole /64 and changes its address at will: the network counts. */
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
