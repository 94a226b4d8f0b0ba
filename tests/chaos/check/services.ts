import type { Facts } from './facts.ts'
import { type Violation, violation } from './violation.ts'

const MB = 1024 * 1024
/** A service needs some 150 MB when it starts. */
const MAX_RSS_BYTES = 600 * MB
/** A write-ahead log that is larger than this is never reset. */
const MAX_LOG_BYTES = 80 * MB

/** What the services show at the end, and how much memory and disk they take. */
export function* checkServices(facts: Facts): Generator<Violation> {
  const { shown, results, events, outbox, processes, files } = facts
  for (const { id, status } of results)
    if (shown.results.get(id)?.status !== status)
      yield violation('shown wrongly', id, `processor shows ${shown.results.get(id)?.status}`)
  for (const [id, types] of shown.timelines) {
    const expected = ['requested', facts.operationOf.get(id)?.status].map((name) => `posta.operation.${name}`)
    const isWhole = facts.eventsOf.has(id) && facts.eventsOf.has(`${id}.result`)
    const stored = events.filter((each) => each.operation === id && each.type.startsWith('posta.operation.'))
    const counted = types.filter((type) => type.startsWith('posta.operation.'))
    if ((isWhole && !expected.every((type) => types.includes(type))) || !isSameSet(counted, stored))
      yield violation('shown wrongly', id, `monitor shows ${types.join(', ')}`)
  }
  for (const audit of shown.audits)
    if (!audit.ok || audit.events !== events.length)
      yield violation('shown wrongly', 'audit', `ok: ${audit.ok}, ${audit.events} of ${events.length}`)
  if (outbox > 0) yield violation('left in the outbox', 'outbox', `${outbox} rows`)
  for (const { name, maxRssBytes, endedBy } of processes) {
    if (endedBy !== 0) yield violation('did not drain', name, `ended with ${endedBy}`)
    if (maxRssBytes > MAX_RSS_BYTES) yield violation('too large', name, `${Math.round(maxRssBytes / MB)} MB of memory`)
  }
  for (const { name, bytes } of files)
    if (name.endsWith('-wal') && bytes > MAX_LOG_BYTES)
      yield violation('too large', name, `${Math.round(bytes / MB)} MB`)
}

function isSameSet(types: readonly string[], stored: readonly { readonly type: string }[]): boolean {
  return Bun.deepEquals(types.toSorted(), stored.map(({ type }) => type).sort())
}
