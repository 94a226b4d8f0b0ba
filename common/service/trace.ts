import { AsyncLocalStorage } from 'node:async_hooks'

/** The work that a log line or an outgoing message belongs to: W3C Trace Context. */
export interface Trace {
  /** 32 hex digits. */
  readonly traceId: string
  /** 16 hex digits, for this step of the work. */
  readonly spanId: string
  readonly requestId?: string | undefined
}

const storage = new AsyncLocalStorage<Trace>()
const TRACEPARENT = /^[\da-f]{2}-([\da-f]{32})-([\da-f]{16})-[\da-f]{2}(?:-.*)?$/

const randomHex = (bytes: number) => Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex')

/** The step that follows `traceparent`. If that is missing or invalid: the first step of a new trace. */
export function continueTrace(traceparent: string | undefined, requestId?: string): Trace {
  const [, traceId, parentId] = TRACEPARENT.exec(traceparent ?? '') ?? []
  const valid = traceId !== undefined && /[^0]/.test(traceId) && /[^0]/.test(parentId ?? '')
  return { traceId: valid ? traceId : randomHex(16), spanId: randomHex(8), requestId }
}

export function withTrace<Result>(trace: Trace, run: () => Result): Result {
  return storage.run(trace, run)
}

export function currentTrace(): Trace | undefined {
  return storage.getStore()
}

/** The `traceparent` header of what is sent now. */
export function traceparent(trace: Trace | undefined = currentTrace()): string | undefined {
  return trace && `00-${trace.traceId}-${trace.spanId}-01`
}
