import * as v from 'valibot'

/**
 * Every failure that a caller is told of: as a problem in REST (RFC 9457), as `extensions.code` in GraphQL, and as an
 * operation's `error.code`. `help` is the text of the page at `/problems/<code>`.
 */
export const problems = {
  'malformed-request': {
    status: 400,
    title: 'The request cannot be read',
    help: 'The body is not JSON, or a parameter is malformed. `detail` says which.',
  },
  'invalid-credentials': {
    status: 401,
    title: 'Email or password is wrong',
    help: 'There is no such user, the password is wrong, or the session has ended. The answer does not say which. Log in again.',
  },
  'invalid-token': {
    status: 401,
    title: 'A valid access token is needed',
    help: 'Send `Authorization: Bearer <accessToken>` with a token of `POST /auth/login`. A token lives 15 minutes; `POST /auth/refresh` gets another.',
  },
  forbidden: {
    status: 403,
    title: 'Not allowed',
    help: 'The token is valid, but its user does not have the role that this needs.',
  },
  'not-found': { status: 404, title: 'Not found', help: 'There is nothing here, or it is not yours.' },
  'unknown-signal': {
    status: 404,
    title: 'The operation waits for no such answer',
    help: "The contract of the operation's type has no signal of this name.",
  },
  'method-not-allowed': {
    status: 405,
    title: 'Method not allowed',
    help: 'The path exists, for another method. `Allow` names them.',
  },
  'email-taken': {
    status: 409,
    title: 'The email is taken',
    help: 'A user with this email exists. Emails are compared in lower case.',
  },
  conflict: {
    status: 409,
    title: 'Not possible in this state',
    help: 'What is asked does not fit the present state. `detail` says why.',
  },
  'already-terminal': {
    status: 409,
    title: 'The operation has ended',
    help: 'It has succeeded or failed, and stays as it is.',
  },
  'already-given': {
    status: 409,
    title: 'The answer was given before',
    help: 'An operation takes each signal once.',
  },
  'payload-too-large': {
    status: 413,
    title: 'The body is too large',
    help: 'A body has at most 64 KiB, a message at most 256 KiB.',
  },
  'unsupported-media-type': {
    status: 415,
    title: 'The content type is not supported',
    help: 'Send JSON with `Content-Type: application/json`.',
  },
  'invalid-input': {
    status: 422,
    title: 'The input is invalid',
    help: '`errors` lists each fault, with a JSON pointer to it.',
  },
  // example {
  'unknown-currency': {
    status: 422,
    title: 'The currency is unknown',
    help: 'The rate table of the day has no such currency.',
  },
  // }
  'idempotency-key-reused': {
    status: 422,
    title: 'The idempotency key was used for something else',
    help: 'The same Idempotency-Key was sent before with another type or input. Use a new key for a new operation.',
  },
  'limit-exceeded': {
    status: 422,
    title: 'The limit would be exceeded',
    help: "What a user's operations of one period count together may not exceed the limit. The operation failed and counts nothing.",
  },
  // example {
  'payee-refused': {
    status: 422,
    title: 'The payee was refused',
    help: 'The payment provider does not pay to this payee. Nothing was paid and the operation counts nothing.',
  },
  // }
  'not-approved': {
    status: 422,
    title: 'An operator did not approve',
    help: 'The operation needed the approval of an operator, who refused. What it had done was undone.',
  },
  cancelled: {
    status: 409,
    title: 'The operation was cancelled',
    help: 'It was cancelled before its point of no return. What it had done was undone.',
  },
  'timed-out': {
    status: 422,
    title: 'The operation took too long',
    help: 'It did not end within 30 days. What it had done was undone.',
  },
  'too-many-requests': {
    status: 429,
    title: 'Too many requests',
    help: 'Wait for as many seconds as `Retry-After` says.',
  },
  'too-many-pending': {
    status: 429,
    title: 'Too many operations are pending',
    help: 'A user has at most 100 operations pending, and at most 1,000 that wait for an answer. Wait until some are done.',
  },
  'quota-exceeded': {
    status: 429,
    title: 'A quota is used up',
    help: 'What one user may use in a minute, an hour or a day is bounded. `RateLimit` says how much is left, and `Retry-After` when all of it is free again.',
  },
  internal: {
    status: 500,
    title: 'Something went wrong here',
    help: 'The fault is ours. The log has it under the request id of the answer.',
  },
  'dead-lettered': {
    status: 500,
    title: 'The operation could not be processed',
    help: 'Its message was set aside as a dead letter. Unless an operator discards that, it can be redriven, and the operation may then still succeed.',
  },
  // example {
  'rates-unavailable': {
    status: 503,
    title: 'No rates are available',
    help: 'The external API and every fallback are down. Try again later.',
  },
  // }
  'keys-unavailable': {
    status: 503,
    title: 'Tokens cannot be checked at the moment',
    help: 'The keys that tokens are signed with could not be fetched. Try again later.',
  },
  unavailable: {
    status: 503,
    title: 'A part of the system cannot be reached at the moment',
    help: 'A store or the broker does not answer. Try again after as many seconds as `Retry-After` says.',
  },
  overloaded: {
    status: 503,
    title: 'Too busy at the moment',
    help: 'A bounded queue is full. Try again after as many seconds as `Retry-After` says.',
  },
} as const

export type ProblemCode = keyof typeof problems
export const problemCodes = Object.keys(problems) as [ProblemCode, ...ProblemCode[]]

/** One fault of an input. `pointer` is an RFC 6901 pointer as a URI fragment: `#/input/amount`. */
interface InputFault {
  readonly pointer: string
  readonly detail: string
}

/** A quota as the header fields `RateLimit-Policy` and `RateLimit` tell it (draft-ietf-httpapi-ratelimit-headers-10). */
interface RateLimit {
  readonly name: string
  readonly unit: 'requests' | 'content-bytes'
  readonly quota: number
  readonly windowS: number
  readonly remaining: number
  readonly resetS: number
}

/**
 * A failure that the caller is told of: a code, and a sentence for people that holds no secret.
 * @example
 * throw new Problem('not-found', 'You have no operation with this id.')
 */
export class Problem extends Error {
  override name = 'Problem'
  readonly code: ProblemCode
  readonly errors: readonly InputFault[] | undefined
  readonly retryAfterS: number | undefined
  readonly rateLimit: RateLimit | undefined
  constructor(
    code: ProblemCode,
    detail?: string,
    more: { errors?: readonly InputFault[]; retryAfterS?: number; rateLimit?: RateLimit; cause?: unknown } = {},
  ) {
    super(detail ?? problems[code].title, { cause: more.cause })
    this.code = code
    this.errors = more.errors
    this.retryAfterS = more.retryAfterS
    this.rateLimit = more.rateLimit
  }
}

/** The faults that valibot found, without the values, which may be secret. */
export function inputFaults(issues: readonly v.BaseIssue<unknown>[], base = '#'): InputFault[] {
  return issues.slice(0, 20).map((issue) => ({ pointer: base + pointerOf(issue), detail: faultText(issue) }))
}

function pointerOf(issue: v.BaseIssue<unknown>): string {
  return (issue.path ?? []).map((item) => `/${String(item.key).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
}

function faultText(issue: v.BaseIssue<unknown>): string {
  if (issue.type === 'strict_object' && issue.expected === 'never') return 'is not a member of this object'
  if (issue.kind === 'schema' && issue.received === 'undefined') return 'is missing'
  // valibot's own messages begin with Invalid and quote the input. Ours do neither.
  if (!issue.message.startsWith('Invalid ')) return issue.message
  return `must be ${expectation(issue.expected ?? 'valid')}`
}

function expectation(expected: string): string {
  if (expected === 'Object' || expected === 'Array') return `an ${expected.toLowerCase()}`
  if (expected.startsWith('(')) return `one of ${expected.slice(1, -1).replaceAll(' | ', ', ')}`
  return /^[a-z]/.test(expected) ? `a ${expected}` : expected
}

/** What `schema` makes of `input`. @throws Problem `invalid-input`, with a pointer below `base` for each fault. */
export function checkInput<Schema extends v.GenericSchema>(
  schema: Schema,
  input: unknown,
  base = '#',
): v.InferOutput<Schema> {
  const checked = v.safeParse(schema, input, { abortPipeEarly: true })
  if (checked.success) return checked.output
  throw new Problem('invalid-input', undefined, { errors: inputFaults(checked.issues, base) })
}
