import type { Deps } from '@posta/common/service/deps.ts'
import ky, { type KyInstance } from 'ky'

const MAX_ANSWER_BYTES = 1024 * 1024

export class AnswerTooLarge extends Error {
  constructor() {
    super(`the answer has more than ${MAX_ANSWER_BYTES} bytes`)
  }
}

/** `fetch` whose answers have at most 1 MiB after decompression. The body of an error answer is not read. */
export function boundedFetch(fetch: Deps['fetch']) {
  return async (input: string | URL | Request, init?: RequestInit): Promise<Response> => {
    const response = await fetch(input, init)
    const { status, headers } = response
    if (!response.ok || !response.body) {
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
 * A client of external HTTP APIs for preparers: 2 s for an answer to begin, 8 s in all with two more tries of a GET that was
 * answered 429 or 5xx, at most 1 MiB an answer, no redirects.
 * @example
 * const names: Preparer<Catalog['greet']> = async ({ input, signal }, { http }) =>
 *   http.get(`https://names.example.com/${encodeURIComponent(input.id)}`, { signal }).json()
 */
export function createHttp(deps: Pick<Deps, 'fetch'>): KyInstance {
  return ky.create({
    fetch: boundedFetch(deps.fetch),
    redirect: 'manual',
    timeout: 2000,
    totalTimeout: 8000,
    retry: { limit: 2, jitter: true },
  })
}
