import { logFault, toProblem } from '@posta/common/service/http.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { inputFaults, Problem, problems } from '@posta/common/service/problem.ts'
import { GraphQLError } from 'graphql'
import type { Plugin } from 'graphql-yoga'
import * as v from 'valibot'

/** The extensions of GQLoom's error for an argument that does not fit its schema. */
const RejectedInput = v.object({
  issues: v.array(v.custom<v.BaseIssue<unknown>>((issue) => v.is(v.object({ message: v.string() }), issue))),
})

/**
 * Makes the function that turns an error into the one that a client sees: `extensions.code` has the same codes as REST's
 * problems. An unexpected error is logged, and the client sees `internal`. Without `suggestions` a message does not
 * suggest names of the schema, which would reveal it.
 */
export function maskError(log: Logger, options: { suggestions: boolean }): (error: unknown) => GraphQLError {
  return (error) => {
    if (!(error instanceof GraphQLError)) return problemError(toProblem(error))
    const rejected = v.safeParse(RejectedInput, error.extensions)
    if (rejected.success) {
      const errors = inputFaults(rejected.output.issues, '#/input')
      return problemError(new Problem('invalid-input', undefined, { errors }), error)
    }
    if (error.originalError && !(error.originalError instanceof GraphQLError)) {
      const problem = toProblem(error.originalError)
      logFault(log, problem, { path: error.path })
      return problemError(problem, error)
    }
    const message = withoutValues(error.message)
    const detail = options.suggestions ? message : message.replace(/ Did you mean [\s\S]*/, '')
    return problemError(new Problem('malformed-request', detail), error)
  }
}

function problemError(problem: Problem, at?: GraphQLError): GraphQLError {
  const { code, errors, retryAfterS } = problem
  const http = httpOf(at)
  return new GraphQLError(problem.message, {
    ...(at?.nodes && { nodes: at.nodes }),
    ...(at?.source && { source: at.source }),
    ...(at?.positions && { positions: at.positions }),
    ...(at?.path && { path: at.path }),
    extensions: {
      code,
      ...(errors && { errors }),
      ...(retryAfterS !== undefined && { retryAfter: Math.ceil(retryAfterS) }),
      ...(http !== undefined && { http }),
    },
  })
}

/**
 * The status that an error asks for. Yoga answers 200 to what it marks with `spec`, where a client accepts
 * `application/json`: right for a document with a fault, and not for a body that is no request at all.
 */
function httpOf(error: GraphQLError | undefined) {
  const { http, code } = error?.extensions ?? {}
  const isBody = code === 'BAD_REQUEST' && error?.source === undefined
  return isBody && v.is(v.object({ status: v.literal(400) }), http) ? { status: 400 } : http
}

/** Gives an error that comes before a subscription begins the status that REST would answer: no stream begins. */
export function statusOfSubscriptions(): Plugin {
  return {
    onSubscribe: () => ({
      onSubscribeResult({ result, setResult }) {
        if (!('errors' in result) || !result.errors) return
        setResult({ errors: result.errors.map(withStatus) })
      },
    }),
  }
}

function withStatus(error: GraphQLError): GraphQLError {
  if (!error.originalError || error.originalError instanceof GraphQLError) return error
  const { code, retryAfterS } = toProblem(error.originalError)
  const headers = retryAfterS === undefined ? {} : { 'Retry-After': String(Math.ceil(retryAfterS)) }
  const { nodes, path, originalError } = error
  return new GraphQLError(error.message, {
    ...(nodes && { nodes }),
    ...(path && { path }),
    originalError,
    extensions: { http: { status: problems[code].status, headers } },
  })
}

/** A message of graphql-js without the value that it quotes, which may be a password. */
function withoutValues(message: string): string {
  return message
    .replace(
      / got invalid value [\s\S]*?(?= at "[\w.[\]]+"; |; (?:Field|Expected|Enum|String|Int|ID|Float|Boolean)\b)/,
      ' got an invalid value',
    )
    .replace(/(?<=(?:cannot represent|Expected value)[^:]*: )[\s\S]*/, '(the value given)')
}

/** Passes the errors of validation through `mask`, which yoga does not do by itself. */
export function maskValidationErrors(mask: (error: unknown) => GraphQLError): Plugin {
  return {
    onValidate() {
      return ({ valid, result, setResult }) => {
        if (!valid) setResult(result.map(mask))
      }
    },
  }
}
