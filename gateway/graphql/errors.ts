import { logFault, toProblem } from '@posta/common/service/http.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { inputFaults, Problem } from '@posta/common/service/problem.ts'
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
  const http = at?.extensions.http
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
