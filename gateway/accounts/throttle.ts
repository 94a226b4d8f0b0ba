import type { Deps } from '@posta/common/service/deps.ts'
import { eventNetwork, networkOf, networksOf } from '@posta/common/service/network.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { inArray, sql } from 'drizzle-orm'
import type { Database } from '../database/open.ts'
import { attempts } from '../database/schema.ts'
import type { Statement } from '../database/transaction.ts'
import type { Mac } from './secret.ts'

/**
 * Bounds attempts. Throws while too many are counted; else returns what the caller writes in its own transaction, so that a
 * count costs no transaction, and a refused attempt no write.
 *
 * Counts are rows of the database: all gateways share them, and a restart forgets none. An attempt that is under way counts
 * in its own process, so that a burst of parallel attempts gets no further there than the same attempts in a row. What several
 * gateways let through at once beyond that is counted, too: it only makes the next wait longer.
 * @throws Problem `too-many-requests`
 * @example
 * using attempt = await throttle(loginCounts({ email, address, device }))
 * await writer.write(isRight ? [...attempt.forget, ...others] : [attempt.count])
 */
export type Throttle = (counts: Counts) => Promise<Attempt>

interface Attempt extends Disposable {
  /** Counts the attempt. Without it, the attempt counts only until it is disposed. */
  readonly count: Statement
  /** Takes back what was counted of the attempts that are `own`: the password was right. */
  readonly forget: readonly Statement[]
}

/** How many may follow each other at once. After that one more is allowed every `refillMs`. */
interface Limit {
  readonly burst: number
  readonly refillMs: number
}

interface Count {
  readonly name: readonly string[]
  readonly limit: Limit
}

/** Who was refused, as far as it is known: with `email` or `user`, and the network that events name. */
export interface Throttled {
  readonly what: 'login' | 'registration' | 'password-change'
  readonly email?: string | undefined
  readonly user?: string | undefined
  readonly network?: string | undefined
}

/** What an attempt counts against. A right password takes back `own`, and not `shared`. `by` is for the event of a refusal. */
export interface Counts {
  readonly by: Throttled
  readonly own: readonly Count[]
  readonly shared: readonly Count[]
}

const MINUTE_MS = 60 * 1000
const HOUR_MS = 60 * MINUTE_MS

/** Together they allow 10 guesses at once, 50 in 40 minutes, and 98 in any 24 hours. */
const GUESSES: readonly Limit[] = [
  { burst: 10, refillMs: MINUTE_MS },
  { burst: 50, refillMs: 30 * MINUTE_MS },
]
/** Many people may share an address. */
const LOGINS_PER_NETWORK: Limit = { burst: 100, refillMs: 6000 }

/**
 * Wrong passwords for an email: from a known device, those of that device alone, so that no stranger can raise the count. From
 * elsewhere, those from the same network, and all those from the network for any email.
 */
export function loginCounts(login: { email: string; address: string; device: string | undefined }): Counts {
  const { email, address, device } = login
  const by: Throttled = { what: 'login', email, network: eventNetwork(address) }
  if (device !== undefined) return { by, own: guesses('device', device), shared: [] }
  return {
    by,
    own: guesses('login', email, networkOf(address)),
    shared: perNetwork('logins', address, LOGINS_PER_NETWORK),
  }
}

/** Wrong passwords of somebody who is logged in, from the same network. */
export function passwordCounts({ user, address }: { user: string; address: string }): Counts {
  const by: Throttled = { what: 'password-change', user, network: eventNetwork(address) }
  return { by, own: guesses('password', user, networkOf(address)), shared: [] }
}

/** Registrations from a network, also such as were refused because the email is taken. */
export function registrationCounts(address: string, perHour: number): Counts {
  return {
    by: { what: 'registration', network: eventNetwork(address) },
    own: [],
    shared: perNetwork('registrations', address, { burst: perHour, refillMs: Math.ceil(HOUR_MS / perHour) }),
  }
}

const guesses = (...name: string[]): Count[] => GUESSES.map((limit) => ({ name, limit }))

/** The /56 has twice as much as one of its 256 /64, the /48 four times as much. */
function perNetwork(what: string, address: string, { burst, refillMs }: Limit): Count[] {
  return networksOf(address).map((network, index) => {
    const times = 2 ** index
    return { name: [what, network], limit: { burst: burst * times, refillMs: Math.ceil(refillMs / times) } }
  })
}

/** @param options.onThrottled is called for each attempt that is refused */
export function createThrottle(options: {
  database: Database
  mac: Mac
  onThrottled: (by: Throttled) => void
  deps: Pick<Deps, 'now'>
}): Throttle {
  const { database, mac, onThrottled, deps } = options
  /** How many attempts are under way, by key. As many as wait for a hash or for the database: a bounded number. */
  const underWay = new Map<string, number>()
  const add = (key: string, change: 1 | -1) => {
    const sum = (underWay.get(key) ?? 0) + change
    if (sum === 0) underWay.delete(key)
    else underWay.set(key, sum)
  }

  // A name with another limit is another count.
  const keyed = ({ name, limit }: Count) => ({
    ...limit,
    key: mac('attempts', ...name, String(limit.burst)).slice(0, 22),
  })

  return async ({ by, own, shared }) => {
    const owns = own.map(keyed)
    const all = [...owns, ...shared.map(keyed)]
    const keys = all.map(({ key }) => key)
    const rows = await database.select().from(attempts).where(inArray(attempts.key, keys))
    const stored = new Map(rows.map(({ key, zeroAt }) => [key, zeroAt]))
    // From here until the attempt is under way nothing else runs.
    const nowMs = deps.now()
    const waitMs = ({ key, burst, refillMs }: (typeof all)[number]) =>
      Math.max(0, (stored.get(key) ?? 0) - nowMs) + (underWay.get(key) ?? 0) * refillMs + refillMs - burst * refillMs
    const longestMs = Math.max(...all.map(waitMs))
    if (longestMs > 0) {
      onThrottled(by)
      throw new Problem('too-many-requests', 'Too many attempts.', { retryAfterS: Math.ceil(longestMs / 1000) })
    }
    for (const key of keys) add(key, 1)

    const isStored = owns.some(({ key }) => stored.has(key))
    return {
      count: sql`
        INSERT INTO ${attempts} (key, zero_at)
        SELECT value ->> 'key', CAST(${nowMs} + (value ->> 'refillMs') AS INTEGER) FROM json_each(${JSON.stringify(all)})
        WHERE TRUE
        ON CONFLICT (key) DO UPDATE SET zero_at = CAST(max(zero_at, ${nowMs}) + excluded.zero_at - ${nowMs} AS INTEGER)`,
      forget: isStored
        ? [sql`DELETE FROM ${attempts} WHERE key IN (SELECT value ->> 'key' FROM json_each(${JSON.stringify(owns)}))`]
        : [],
      [Symbol.dispose]() {
        for (const key of keys) add(key, -1)
      },
    }
  }
}
