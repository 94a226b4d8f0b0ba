import type { RateTable } from '@posta/common/operations/rates.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { AnswerTooLarge, codeOf, createHttp, failureText, refusalOf } from '@posta/common/service/external-http.ts'
import { readTable } from './read-table.ts'

export interface Host {
  /** Without a slash at its end. `<url>/v1/currencies/<code in lower case>.json` is the only path asked for. */
  readonly url: string
  readonly source: 'live' | 'mirror'
}

/** `down`: the failure does not depend on the currency: the host cannot be reached, is slow, or answers that it is failing. */
type Asked = { readonly table: RateTable } | { readonly failure: string; readonly down: boolean }

interface Limits {
  /** For all tries, the pauses between them, and reading the answer. */
  readonly budgetMs: number
  /** For one try, until its answer begins. */
  readonly tryMs: number
  /** `YYYY-MM-DD`: the table must be of a day from `notBefore` to `notAfter`. */
  readonly notBefore: string
  readonly notAfter: string
}

/**
 * Asks one host for the table of `base` (upper case). Never rejects: `failure` says what failed, in words for the log.
 *
 * A host that answers 5xx or breaks off is asked again, up to twice, after growing pauses. A host that cannot be reached or
 * is slow is not, since the next host is the better second try; nor is one that says when to come back (`Retry-After`).
 * Redirects are not followed: the operator alone decides where rates come from.
 */
export async function askHost(host: Host, base: string, limits: Limits, deps: Pick<Deps, 'fetch'>): Promise<Asked> {
  let answer: unknown
  try {
    answer = await createHttp(deps)
      .get(`${host.url}/v1/currencies/${base.toLowerCase()}.json`, {
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
  if (date > limits.notAfter) return { failure: `the answer is of a day in the future, ${date}`, down: false }
  if (date < limits.notBefore) return { failure: `the answer is of ${date}, older than the table at hand`, down: false }
  return read
}

/** Whether the same host is likely to answer in a moment. */
function isPassing(error: Error): boolean {
  const refusal = refusalOf(error)
  if (refusal) return refusal.status >= 500 && !refusal.headers.has('retry-after')
  return codeOf(error) === 'ECONNRESET'
}

function isDown(error: unknown): boolean {
  const refusal = refusalOf(error)
  if (refusal) return refusal.status >= 500 || refusal.status === 429
  return !(error instanceof SyntaxError) && !(error instanceof AnswerTooLarge)
}
