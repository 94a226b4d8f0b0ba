/** SQLite's and libSQL's codes for a fault of a statement, which is ours. Every other is of the file, the disk or the server. */
const OUR_FAULT = /^SQLITE_(?:ERROR|CONSTRAINT|MISMATCH|MISUSE|RANGE|TOOBIG)/

/**
 * Whether an error, or what caused it, says that a store cannot be reached or does not work: that the same may succeed
 * later. By the names that the drivers give their errors, since each service has drivers of its own.
 */
export function isOutage(error: unknown): boolean {
  // Bounded, since nothing keeps causes from going in a circle.
  for (let each = error, depth = 0; each instanceof Error && depth < 10; each = each.cause, depth++) {
    const code = 'code' in each && typeof each.code === 'string' ? each.code : ''
    if (/^(?:SQLiteError|LibsqlError)$/.test(each.name)) return !OUR_FAULT.test(code)
    // A connection, a file or a folder that the system refuses has its code: ECONNREFUSED, ENOSPC.
    if (/^Mongo\w*Error$/.test(each.name) || each.name === 'TimeoutError' || /^E[A-Z]+$/.test(code)) return true
  }
  return false
}
