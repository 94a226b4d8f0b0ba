/**
 * The promise's result, or a rejection after `timeoutMs`. What comes later is ignored.
 * @example
 * await within(store.ping(), 3000, 'The answer')
 */
export async function within<Result>(promise: Promise<Result>, timeoutMs: number, what: string): Promise<Result> {
  const late = Promise.withResolvers<never>()
  const timer = setTimeout(
    () => late.reject(new Error(`${what} took longer than ${Math.ceil(timeoutMs)} ms.`)),
    timeoutMs,
  )
  try {
    return await Promise.race([promise, late.promise])
  } finally {
    clearTimeout(timer)
  }
}
