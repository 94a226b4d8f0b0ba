import * as v from 'valibot'

/** What a service answered, with its JSON, if any. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: unknown
}

/** Sends a request as a client would: JSON in, JSON out. */
export async function call(
  method: 'GET' | 'POST',
  url: string,
  options: { token?: string; body?: unknown; headers?: Record<string, string>; signal?: AbortSignal } = {},
): Promise<Answer> {
  const { token, body, headers, signal } = options
  const response = await fetch(url, {
    method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
      ...headers,
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(signal && { signal }),
  })
  const text = await response.text()
  const isJson = /\bjson\b/.test(response.headers.get('content-type') ?? '')
  return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text }
}

/** A GraphQL request; its `data` and `errors`. */
export async function graphql(
  gatewayUrl: string,
  query: string,
  variables: Record<string, unknown> = {},
  token?: string,
): Promise<Answer> {
  return call('POST', `${gatewayUrl}/graphql`, { body: { query, variables }, ...(token !== undefined && { token }) })
}

export const Tokens = v.object({
  accessToken: v.string(),
  tokenType: v.literal('Bearer'),
  expiresIn: v.number(),
  refreshToken: v.string(),
})

/** The body of an answer that must have this status. @throws Error that says what came instead. */
export function expectBody<Schema extends v.GenericSchema>(
  answer: Answer,
  status: number,
  schema: Schema,
): v.InferOutput<Schema> {
  const checked = v.safeParse(schema, answer.body)
  if (answer.status !== status || !checked.success)
    throw new Error(`Expected ${status} and another body, but got ${answer.status} ${JSON.stringify(answer.body)}`)
  return checked.output
}

/** Asks again until `done` accepts the answer. @throws Error with the last answer after `withinMs`. */
export async function eventually(
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
