import { type Logger, pino, stdSerializers } from 'pino'
import { NAME } from '../name.ts'
import { messageOf, outageIn } from './outage.ts'
import { currentTrace } from './trace.ts'

export type { Logger }

/** Lines of JSON on standard output, with the ids of the request and the trace that they belong to. */
export function createLog(service: string, level: string): Logger {
  return pino({
    level,
    base: { service: `${NAME}-${service}`, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    serializers: { err: serializeError },
    // Nothing here logs a header or a body. This guards against a mistake.
    redact: { paths: SECRETS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '[secret]' },
    mixin() {
      const trace = currentTrace()
      return trace ? { trace_id: trace.traceId, span_id: trace.spanId, request_id: trace.requestId } : {}
    },
  })
}

/** An outage is told without a stack, which says nothing of what is down. */
function serializeError(error: unknown) {
  if (!(error instanceof Error)) return { message: String(error) }
  // A query builder's error has every value of its query in its message, emails too. Its cause says what went wrong.
  const shown = 'params' in error && error.cause instanceof Error ? error.cause : error
  const outage = outageIn(shown)
  if (!outage) return stdSerializers.err(shown)
  return {
    type: outage.name,
    message: messageOf(shown),
    code: outage.code,
    ...('path' in outage && { path: outage.path }),
  }
}

const SECRETS = [
  'password',
  'passwordHash',
  'currentPassword',
  'newPassword',
  'authorization',
  'accessToken',
  'refreshToken',
  'token',
  'd',
]
