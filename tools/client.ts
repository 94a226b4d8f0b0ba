import * as v from 'valibot'

export interface Answer {
  readonly status: number
  readonly headers: Headers
  /** The value of a JSON answer; the text of any other. */
  readonly body: unknown
}

/** Sends a request as a client does: JSON in, JSON out. */
export async function call(
  method: 'GET' | 'POST',
  url: string,
  options: {
    token?: string | undefined
    body?: unknown
    headers?: Record<string, string>
    signal?: AbortSignal | undefined
  } = {},
): Promise<Answer> {
  const { token, body, headers, signal = null } = options
  const response = await fetch(url, {
    method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    body: body === undefined ? null : JSON.stringify(body),
    signal,
  })
  const text = await response.text()
  const isJson = /\bjson\b/.test(response.headers.get('content-type') ?? '')
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text }
}

/** Sends a GraphQL request. The body of the answer has its `data` and `errors`. */
export function graphql(gatewayUrl: string, query: string, variables: object = {}, token?: string): Promise<Answer> {
  return call('POST', `${gatewayUrl}/graphql`, { body: { query, variables }, token })
}

/** What a login answers. */
export const Tokens = v.object({
  accessToken: v.string(),
  tokenType: v.literal('Bearer'),
  expiresIn: v.number(),
  refreshToken: v.string(),
})

/** The body of an answer. @throws Error that shows the answer, where its status or body is not as expected. */
export function expectBody<Schema extends v.GenericSchema>(
  answer: Answer,
  status: number,
  schema: Schema,
): v.InferOutput<Schema> {
  const checked = v.safeParse(schema, answer.body)
  if (answer.status === status && checked.success) return checked.output
  throw new Error(`Expected ${status} and another body, but got ${answer.status} ${JSON.stringify(answer.body)}`)
}

/**
 * Asks every 20 ms until `done` accepts the answer. Resolves to that answer.
 * @throws Error that shows the last answer, after `withinMs`
 * @example
 * await askUntil(() => call('GET', `${url}/health/ready`), ({ status }) => status === 200)
 */
export async function askUntil(
  ask: () => Promise<Answer>,
  done: (answer: Answer) => boolean,
  withinMs = 15_000,
): Promise<Answer> {
  const deadlineMs = performance.now() + withinMs
  for (;;) {
    const answer = await ask()
    if (done(answer)) return answer
    if (performance.now() > deadlineMs)
      throw new Error(`Not within ${withinMs} ms; the last answer was ${answer.status} ${JSON.stringify(answer.body)}`)
    await Bun.sleep(20)
  }
}
