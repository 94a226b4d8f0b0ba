import type { RateTable } from '@posta/common/operations/rates.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { LRUCache } from 'lru-cache'
import { askHost, type Host } from './ask-host.ts'
import { bundledSnapshot, type Snapshot } from './snapshot.ts'

export interface Rates {
  /**
   * What one unit of `base` (upper case) is worth. `source` and `date` say how new that is:
   *
   * - `live`, `mirror`: fetched for this request, or for one that was under way at the same time.
   * - `cache`: an earlier answer that gateway kept. It is served for an hour of the same UTC day without asking again, and
   *   for as long as the process lives where no host can answer; `date` tells which.
   * - `bundled`: the snapshot of the package, where there is nothing newer.
   *
   * Tables never go back: an answer of an earlier day than what is here already is not taken.
   * `signal` ends the waiting of this caller alone, with the signal's reason.
   *
   * @throws Problem `unknown-currency` if the snapshot's list does not have `base`. The list decides alone, before anything
   *   is fetched, so that invented codes cost no request; a new currency needs a new version of the package. That a host
   *   answers 404 is no proof: it says as much about a gap in what was published.
   * @throws Problem `rates-unavailable` with `retryAfterS` if neither a host nor a fallback has a table.
   */
  table(base: string, options?: { readonly signal?: AbortSignal | undefined }): Promise<RateTable>
}

interface RatesConfig {
  /**
   * RATES_URL. Without it: the public API, then its mirror. `bundled:`: the snapshot alone, nothing is fetched. Any other:
   * a base that `/v1/currencies/<code>.json` is appended to (and no other path), with answers as the public API gives them.
   * In each case an earlier answer and then the snapshot stand in for what cannot be fetched.
   */
  readonly url?: string | undefined
  /** How long all hosts together may take. */
  readonly budgetMs?: number
}

/** The part of a pino logger that is needed. */
interface Log {
  warn(facts: object, text: string): void
}

const PUBLIC_HOSTS: readonly Host[] = [
  { url: 'https://cdn.jsdelivr.net/npm/@fawazahmed0/currency-api@latest', source: 'live' },
  { url: 'https://latest.currency-api.pages.dev', source: 'mirror' },
]
const FRESH_MS = 60 * 60 * 1000
const DAY_MS = 24 * FRESH_MS
const PAUSE_MS = 15_000

export function createRates(
  { url, budgetMs = 5000 }: RatesConfig,
  deps: Pick<Deps, 'now' | 'monotonicMs' | 'fetch'>,
  log: Log,
  snapshot: Snapshot = bundledSnapshot(),
): Rates {
  const hosts = hostsOf(url)
  const kept = new LRUCache<string, { table: RateTable; freshUntilMs: number; day: string }>({ max: 100 })
  // Both hold no more than the snapshot's list has.
  const underWay = new Map<string, Promise<RateTable | undefined>>()
  const pausedUntilMs = new Map<string, number>()
  /** While no host answers at all; undefined when one did. */
  let downUntilMs: number | undefined

  const day = (ms: number) => new Date(ms).toISOString().slice(0, 10)

  function fresh(base: string): RateTable | undefined {
    const earlier = kept.get(base)
    return earlier && deps.monotonicMs() < earlier.freshUntilMs && day(deps.now()) === earlier.day
      ? earlier.table
      : undefined
  }

  /** The table from a host, by one round of requests for everyone who asks meanwhile; undefined if there is none now. */
  async function fetched(base: string): Promise<RateTable | undefined> {
    const shared = underWay.get(base)
    if (shared) return shared
    if (hosts.length === 0 || deps.monotonicMs() < Math.max(downUntilMs ?? 0, pausedUntilMs.get(base) ?? 0))
      return undefined
    const asking = askHosts(base).finally(() => underWay.delete(base))
    underWay.set(base, asking)
    return asking
  }

  async function askHosts(base: string): Promise<RateTable | undefined> {
    // After an outage one request finds out whether it is over; the others need not wait for that.
    if (downUntilMs !== undefined) downUntilMs = deps.monotonicMs() + PAUSE_MS
    const limits = {
      budgetMs: budgetMs / hosts.length,
      tryMs: Math.min(2000, budgetMs / hosts.length),
      notBefore: (kept.get(base)?.table ?? (await snapshot.table(base).catch(() => undefined)))?.date ?? '',
      // A day ahead of ours: the clocks differ, and so do the days around the world.
      notAfter: day(deps.now() + DAY_MS),
    }
    let down = true
    for (const host of hosts) {
      const asked = await askHost(host, base, limits, deps)
      if ('table' in asked) {
        downUntilMs = undefined
        pausedUntilMs.delete(base)
        const freshUntilMs = deps.monotonicMs() + FRESH_MS
        kept.set(base, { table: { ...asked.table, source: 'cache' }, freshUntilMs, day: day(deps.now()) })
        return asked.table
      }
      log.warn({ host: URL.parse(host.url)?.host, base, reason: asked.failure }, 'no rates from a host')
      down &&= asked.down
    }
    // What is wrong with one currency must not cost the others their fresh rates.
    downUntilMs = down ? deps.monotonicMs() + PAUSE_MS : undefined
    if (!down) pausedUntilMs.set(base, deps.monotonicMs() + PAUSE_MS)
    return undefined
  }

  async function fallback(base: string): Promise<RateTable> {
    const earlier = kept.get(base)
    if (earlier) return earlier.table
    try {
      return await snapshot.table(base)
    } catch (cause) {
      throw new Problem('rates-unavailable', undefined, { retryAfterS: PAUSE_MS / 1000, cause })
    }
  }

  return {
    async table(base, { signal } = {}) {
      signal?.throwIfAborted()
      if (!snapshot.has(base)) throw new Problem('unknown-currency', `There is no currency with the code ${base}.`)
      return fresh(base) ?? (await unlessAborted(fetched(base), signal)) ?? fallback(base)
    },
  }
}

function hostsOf(url: string | undefined): readonly Host[] {
  if (url === undefined) return PUBLIC_HOSTS
  return url === 'bundled:' ? [] : [{ url: url.replace(/\/+$/, ''), source: 'live' }]
}

/** As `promise`, or rejects with the signal's reason as soon as it aborts. What `promise` stands for goes on. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise
  const aborted = Promise.withResolvers<never>()
  const abort = () => aborted.reject(signal.reason)
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([promise, aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
