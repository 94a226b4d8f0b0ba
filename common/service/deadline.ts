/**
 * The promise's result, or a rejection, a `TimeoutError`, after `timeoutMs`. A result that comes later is ignored.
 * @example
 * await within(store.ping(), 3000, 'The answer')
 */
export async function within<Result>(promise: Promise<Result>, timeoutMs: number, what: string): Promise<Result> {
  const late = Promise.withResolvers<never>()
  const message = `${what} took longer than ${Math.ceil(timeoutMs)} ms.`
  const timer = setTimeout(() => late.reject(new DOMException(message, 'TimeoutError')), timeoutMs)
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    clearTimeout(timer)
  }
}

/** The promise's result, or a rejection with the signal's reason once that aborts. A result that comes later is ignored. */
export async function unlessAborted<Result>(promise: Promise<Result>, signal: AbortSignal): Promise<Result> {
  const aborted = Promise.withResolvers<never>()
  const abort = () => aborted.reject(signal.reason)
  if (signal.aborted) abort()
  signal.addEventListener('abort', abort, { once: true })
  try {
    return await Promise.race([promise, aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
