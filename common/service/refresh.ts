import type { Deps } from './deps.ts'

const FETCH_TIMEOUT_MS = 3000

/**
 * Keeps what gateway serves at a URL up to date. The function fetches it unless a fetch was tried within `everyMs`, and
 * resolves once `take` has the body; calls at the same time share one fetch.
 * @throws Error where the URL does not answer with 2xx within 3 s, or `take` throws
 */
export function createRefresh(options: {
  url: string
  /** `askedAtMs`: when the body was asked for, on the monotonic clock. It is as old as that. */
  take: (body: unknown, askedAtMs: number) => void
  deps: Pick<Deps, 'monotonicMs' | 'fetch'>
}): (everyMs: number) => Promise<void> {
  const { url, take, deps } = options
  let triedAtMs = Number.NEGATIVE_INFINITY
  let fetching: Promise<void> | undefined

  async function fetchNow(): Promise<void> {
    const askedAtMs = deps.monotonicMs()
    const response = await deps.fetch(url, { signal: AbortSignal.timeout(FETCH_TIMEOUT_MS), redirect: 'error' })
    // The URL may hold a secret of the operator's.
    if (!response.ok) throw new Error(`What gateway serves could not be fetched: status ${response.status}.`)
    take(await response.json(), askedAtMs)
  }

  return async (everyMs) => {
    if (!fetching && deps.monotonicMs() - triedAtMs >= everyMs) {
      triedAtMs = deps.monotonicMs()
      fetching = fetchNow().finally(() => {
        fetching = undefined
      })
    }
    await fetching
  }
}
