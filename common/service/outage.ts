/** SQLite's and libSQL's codes for a fault in a statement, which is ours. All others tell of the file, the disk or the server. */
const OUR_FAULT = /^SQLITE_(?:ERROR|CONSTRAINT|MISMATCH|MISUSE|RANGE|TOOBIG)/

/** The error, or its cause, that says that something this service needs cannot be reached. Undefined: it is a fault of ours. */
export function outageIn(error: unknown): (Error & { code?: unknown }) | undefined {
  // Bounded, since nothing keeps causes from going in a circle.
  for (let each = error, depth = 0; each instanceof Error && depth < 10; each = each.cause, depth++) {
    const code = 'code' in each && typeof each.code === 'string' ? each.code : ''
    if (/^(?:SQLiteError|LibsqlError)$/.test(each.name)) return OUR_FAULT.test(code) ? undefined : each
    // The system's codes for a connection, a file or a folder that it refuses: ECONNREFUSED, ENOSPC.
    if (/^E[A-Z]+$/.test(code) || each.name === 'TimeoutError') return each
    // The drivers' names: importing a driver for its classes would load it into services that do not use it.
    if (/^Mongo\w*Error$/.test(each.name)) return each
    if (each.name.startsWith('KafkaJS') && 'retriable' in each && each.retriable === true) return each
  }
  return undefined
}

/** Whether a store or the broker cannot be reached or does not work, so that the same may succeed later. */
export const isOutage = (error: unknown) => outageIn(error) !== undefined

/** What an error says, and the reason of the outage behind it. */
export function messageOf(error: unknown): string {
  const said = error instanceof Error ? error.message : String(error)
  const reason = outageIn(error)?.message ?? ''
  return said.includes(reason) ? said : `${said} ${reason}`
}
