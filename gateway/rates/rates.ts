import type { RateTable } from '@posta/common/operations/rates.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { LRUCache } from 'lru-cache'
import { askHost, type Host } from './ask-host.ts'
import { bundledSnapshot, type Snapshot } from './snapshot.ts'

export interface Rates {
  /**
   * What one unit of `base` (upper case) is worth. `source` and `date` tell how new that is:
   *
   * - `live`, `mirror`: fetched for this request, or for one that was under way at the same time.
   * - `cache`: an earlier answer. Within an hour and the same UTC day it is served without asking again; while no host
   *   answers, for as long as the process lives.
   * - `bundled`: the snapshot of the package, where there is nothing newer.
   *
   * Tables never go back in time: an answer of an earlier day than the table at hand is refused.
   *
   * @throws Problem `unknown-currency` where the snapshot does not list `base`. Its list decides before anything is fetched,
   *   so invented codes cost no request; a new currency needs a new version of the package. A host's 404 proves nothing: its
   *   data may have a gap.
   * @throws Problem `rates-unavailable` with `retryAfterS`, where neither a host nor a fallback has a table
   */
  table(base: string): Promise<RateTable>
}

const PUBLIC_HOSTS: readonly Host[] = [
  { url: 'https://cdn.jsdelivr.net/npm/@fawazahmed0/currency-api@latest', source: 'live' },
  { url: 'https://latest.currency-api.pages.dev', source: 'mirror' },
]
const FRESH_MS = 60 * 60 * 1000
const DAY_MS = 24 * FRESH_MS
/** How long no host is asked again after none of them had a table. */
const PAUSE_MS = 15_000

/**
 * @param options.url RATES_URL. Without it: the public API, then its mirror. `bundled:`: the snapshot alone. Any other: a
 *   base whose `/v1/currencies/<code>.json` answers as the public API does. An earlier answer, and then the snapshot, stand
 *   in for what cannot be fetched.
 * @param options.budgetMs how long all hosts together may take
 */
export function createRates(options: {
  url?: string | undefined
  budgetMs?: number
  deps: Pick<Deps, 'now' | 'monotonicMs' | 'fetch'>
  log: Pick<Logger, 'warn'>
  snapshot?: Snapshot
}): Rates {
  const { url, budgetMs = 5000, deps, log, snapshot = bundledSnapshot() } = options
  const hosts = hostsOf(url)
  const kept = new LRUCache<string, { table: RateTable; day: string; freshUntilMs: number }>({ max: 100 })
  // The snapshot's list bounds both maps.
  const underWay = new Map<string, Promise<RateTable | undefined>>()
  const pausedUntilMs = new Map<string, number>()
  /** While every host is down; undefined otherwise. */
  let downUntilMs: number | undefined

  function fresh(base: string): RateTable | undefined {
    const earlier = kept.get(base)
    const isFresh = earlier && deps.monotonicMs() < earlier.freshUntilMs && dayOf(deps.now()) === earlier.day
    return isFresh ? earlier.table : undefined
  }

  /** The table from a host; undefined if none has it now. Calls at the same time share one round of requests. */
  async function fetched(base: string): Promise<RateTable | undefined> {
    const isPaused = deps.monotonicMs() < Math.max(downUntilMs ?? 0, pausedUntilMs.get(base) ?? 0)
    const shared = underWay.get(base)
    if (shared || isPaused || hosts.length === 0) return shared
    const asking = askHosts(base).finally(() => underWay.delete(base))
    underWay.set(base, asking)
    return asking
  }

  async function askHosts(base: string): Promise<RateTable | undefined> {
    // After an outage one request finds out whether it is over; meanwhile the others use the fallback.
    if (downUntilMs !== undefined) downUntilMs = deps.monotonicMs() + PAUSE_MS
    const older = kept.get(base)?.table ?? (await snapshot.table(base).catch(() => undefined))
    const limits = {
      budgetMs: budgetMs / hosts.length,
      tryMs: Math.min(2000, budgetMs / hosts.length),
      notBefore: older?.date ?? '',
      // One day ahead of ours: clocks differ, and so do days around the world.
      notAfter: dayOf(deps.now() + DAY_MS),
    }
    let down = true
    for (const host of hosts) {
      const asked = await askHost(host, base, limits, deps)
      if ('table' in asked) {
        keep(base, asked.table)
        return asked.table
      }
      log.warn({ host: URL.parse(host.url)?.host, base, reason: asked.failure }, 'a host gave no rates')
      down &&= asked.down
    }
    // A fault of one currency must not stop the requests for the others.
    downUntilMs = down ? deps.monotonicMs() + PAUSE_MS : undefined
    if (!down) pausedUntilMs.set(base, deps.monotonicMs() + PAUSE_MS)
    return undefined
  }

  function keep(base: string, table: RateTable): void {
    downUntilMs = undefined
    pausedUntilMs.delete(base)
    const freshUntilMs = deps.monotonicMs() + FRESH_MS
    kept.set(base, { table: { ...table, source: 'cache' }, day: dayOf(deps.now()), freshUntilMs })
  }

  async function fallback(base: string): Promise<RateTable> {
    try {
      return kept.get(base)?.table ?? (await snapshot.table(base))
    } catch (cause) {
      throw new Problem('rates-unavailable', undefined, { retryAfterS: PAUSE_MS / 1000, cause })
    }
  }

  return {
    async table(base) {
      if (!snapshot.has(base)) throw new Problem('unknown-currency', `There is no currency with the code ${base}.`)
      return fresh(base) ?? (await fetched(base)) ?? fallback(base)
    },
  }
}

/** `YYYY-MM-DD` */
const dayOf = (ms: number) => new Date(ms).toISOString().slice(0, 10)

function hostsOf(url: string | undefined): readonly Host[] {
  if (url === undefined) return PUBLIC_HOSTS
  return url === 'bundled:' ? [] : [{ url: url.replace(/\/+$/, ''), source: 'live' }]
}
