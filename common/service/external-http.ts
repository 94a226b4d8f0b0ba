import ky, { isHTTPError, isTimeoutError, type KyInstance } from 'ky'
import type { Deps } from './deps.ts'

/** A client of external HTTP APIs. */
export type ExternalHttp = KyInstance

const MAX_ANSWER_BYTES = 1024 * 1024

export class AnswerTooLarge extends Error {
  constructor() {
    super(`the answer has more than ${MAX_ANSWER_BYTES} bytes`)
  }
}

/**
 * `fetch` whose answers have at most 1 MiB after decompression. The body of a redirect or of an answer 5xx is not read; that
 * of an answer 4xx may say why something was refused.
 */
export function boundedFetch(fetch: Deps['fetch']) {
  return async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const response = await fetch(input, init)
    const { status, headers } = response
    const isRefusal = status >= 400 && status < 500
    if (!(response.ok || isRefusal) || !response.body) {
      await response.body?.cancel()
      return new Response(null, { status, headers })
    }
    let bytes = 0
    const limit = new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        bytes += chunk.byteLength
        if (bytes > MAX_ANSWER_BYTES) controller.error(new AnswerTooLarge())
        else controller.enqueue(chunk)
      },
    })
    return new Response(response.body.pipeThrough(limit), { status, headers })
  }
}

/**
 * A client of external HTTP APIs, for preparers and for steps: 2 s for an answer to begin, 8 s in all with two more tries of
 * what is no POST and was answered 429 or 5xx, at most 1 MiB an answer, no redirects. `extend` gives one with other times.
 * @example
 * const names: Preparer<Catalog['greet']> = async ({ input, signal }, { http }) =>
 *   http.get(`https://names.example.com/${encodeURIComponent(input.id)}`, { signal }).json()
 */
export function createHttp(deps: Pick<Deps, 'fetch'>): ExternalHttp {
  return ky.create({
    fetch: boundedFetch(deps.fetch),
    redirect: 'manual',
    timeout: 2000,
    totalTimeout: 8000,
    retry: { limit: 2, jitter: true },
  })
}

/** The answer of a call that was refused by its status. */
export function refusalOf(error: unknown): Response | undefined {
  return isHTTPError(error) ? error.response : undefined
}

/** Why a call failed, in words for the log. It does not have the URL, which may contain a secret of the operator's. */
export function failureText(error: unknown): string {
  const refusal = refusalOf(error)
  if (refusal) return `status ${refusal.status}`
  if (isTimeoutError(error)) return 'no answer in time'
  if (error instanceof AnswerTooLarge) return error.message
  if (error instanceof SyntaxError) return 'the answer is not JSON'
  return codeOf(error) ?? (error instanceof Error ? error.name : 'unknown error')
}

/**
 * How long the API asked to be left alone, in ms, where a call failed because it answered 429 or 503 with `Retry-After`; 0
 * where it did not say so. An error whose cause is such an error counts as one.
 */
export function retryAfterMs(error: unknown, nowMs: number): number {
  const failed = isHTTPError(error) ? error : error instanceof Error ? error.cause : undefined
  if (!isHTTPError(failed) || ![429, 503].includes(failed.response.status)) return 0
  const after = failed.response.headers.get('Retry-After') ?? ''
  const ms = /^\d+$/.test(after) ? Number(after) * 1000 : Date.parse(after) - nowMs
  return Number.isNaN(ms) ? 0 : Math.max(0, ms)
}

/** Such as `ECONNRESET`. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}
