import { type Logger, pino, stdSerializers } from 'pino'
import { NAME } from '../name.ts'
import { currentTrace } from './trace.ts'

export type { Logger }

/** Lines of JSON on standard output, with the ids of the request and the trace that they belong to. */
export function createLog(service: string, level: string): Logger {
  return pino({
    level,
    base: { service: `${NAME}-${service}`, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    // Nothing here logs a header or a body; this is the second lock on that door.
    serializers: { err: (error: unknown) => stdSerializers.err(withoutParams(error)) },
    redact: { paths: SECRETS.flatMap((name) => [name, `*.${name}`, `*.*.${name}`]), censor: '[secret]' },
    mixin() {
      const trace = currentTrace()
      return trace ? { trace_id: trace.traceId, span_id: trace.spanId, request_id: trace.requestId } : {}
    },
  })
}

/** A query builder's error has every value of its query in its message, an email too: what caused it says what went wrong. */
function withoutParams(error: unknown): Error {
  if (!(error instanceof Error)) return new Error(String(error))
  return 'params' in error && error.cause instanceof Error ? error.cause : error
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
