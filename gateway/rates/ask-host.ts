import type { RateTable } from '@posta/common/operations/rates.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import ky, { isHTTPError, isTimeoutError } from 'ky'
import { readTable } from './read-table.ts'

export interface Host {
  /** Without a slash at its end. `<url>/v1/currencies/<code in lower case>.json` is the only path asked for. */
  readonly url: string
  readonly source: 'live' | 'mirror'
}

/** `down`: the failure has nothing to do with the currency: the host is unreachable, slow or in trouble by its own word. */
type Asked = { readonly table: RateTable } | { readonly failure: string; readonly down: boolean }

interface Limits {
  /** For everything: tries, waits between them, reading. */
  readonly budgetMs: number
  /** For one try until the answer begins. */
  readonly tryMs: number
  /** `YYYY-MM-DD`: the table must be of a day from `notBefore` to `notAfter`. */
  readonly notBefore: string
  readonly notAfter: string
}

// The largest table has 9 KB. What is beyond this is cut off while it arrives.
const MAX_ANSWER_BYTES = 1024 * 1024

/**
 * Asks one host for the table of `base` (upper case). Never rejects: says what failed, in words that can be logged.
 *
 * A host that answers 5xx or breaks off is asked again, up to twice, after a growing and jittered wait. One that cannot be
 * reached or is slow is not: the next host is the better second try. Neither is one that says when to come back.
 * Redirects are not followed: where rates come from is the operator's decision alone.
 */
export async function askHost(host: Host, base: string, limits: Limits, deps: Pick<Deps, 'fetch'>): Promise<Asked> {
  let answer: unknown
  try {
    answer = await ky
      .get(`${host.url}/v1/currencies/${base.toLowerCase()}.json`, {
        fetch: bounded(deps.fetch),
        redirect: 'manual',
        timeout: limits.tryMs,
        totalTimeout: limits.budgetMs,
        retry: {
          limit: 2,
          delay: (attempt) => 100 * 2 ** attempt,
          jitter: true,
          shouldRetry: ({ error }) => isPassing(error),
        },
      })
      .json()
  } catch (error) {
    return { failure: failureText(error), down: isDown(error) }
  }
  const read = readTable(base, host.source, answer)
  if ('unreadable' in read) return { failure: `the answer cannot be used: ${read.unreadable}`, down: false }
  const { date } = read.table
  if (date > limits.notAfter) return { failure: `the answer is of a day to come, ${date}`, down: false }
  if (date < limits.notBefore) return { failure: `the answer is of ${date}, older than what is here`, down: false }
  return read
}

class AnswerTooLarge extends Error {}

/** `fetch` whose answers hold at most `MAX_ANSWER_BYTES`, counted after decompression; nothing is read of a refusal. */
function bounded(fetch: Deps['fetch']): (input: string | URL | Request, init?: RequestInit) => Promise<Response> {
  return async (input, init) => {
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

/** Whether the same host may well answer in a moment. */
function isPassing(error: Error): boolean {
  if (isHTTPError(error)) return error.response.status >= 500 && !error.response.headers.has('retry-after')
  return codeOf(error) === 'ECONNRESET'
}

function isDown(error: unknown): boolean {
  if (isHTTPError(error)) return error.response.status >= 500 || error.response.status === 429
  return !(error instanceof SyntaxError) && !(error instanceof AnswerTooLarge)
}

function failureText(error: unknown): string {
  // ky's own messages hold the whole URL, in which an operator may have put a secret.
  if (isHTTPError(error)) return `status ${error.response.status}`
  if (isTimeoutError(error)) return 'no answer in time'
  if (error instanceof AnswerTooLarge) return `the answer has more than ${MAX_ANSWER_BYTES} bytes`
  if (error instanceof SyntaxError) return 'the answer is not JSON'
  return codeOf(error) ?? (error instanceof Error ? error.name : 'unknown error')
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}
