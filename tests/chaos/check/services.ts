import type { Facts } from './facts.ts'
import type { Violation } from './violation.ts'

const MB = 1024 * 1024
/** A service needs some 150 MB when it starts. */
const MAX_RSS_BYTES = 600 * MB
/** A write-ahead log that grows beyond this is one that nothing resets. */
const MAX_LOG_BYTES = 80 * MB

/** What the services show and use. */
export function* checkServices(facts: Facts): Generator<Violation> {
  const { shown, results, events, outbox, processes, files } = facts
  for (const { id, status } of results)
    if (shown.results.get(id)?.status !== status)
      yield { rule: 'shown wrongly', subject: id, detail: `processor shows ${shown.results.get(id)?.status}` }
  for (const [id, types] of shown.timelines) {
    const status = facts.operationOf.get(id)?.status
    const whole = facts.eventsOf.has(id) && facts.eventsOf.has(`${id}.result`)
    if (whole && !(types.includes('posta.operation.requested') && types.includes(`posta.operation.${status}`)))
      yield { rule: 'shown wrongly', subject: id, detail: `monitor shows ${types.join(', ')}` }
  }
  for (const audit of shown.audits)
    if (!audit.ok || audit.events !== events.length)
      yield { rule: 'shown wrongly', subject: 'audit', detail: `ok: ${audit.ok}, ${audit.events} of ${events.length}` }
  if (outbox > 0) yield { rule: 'left in the outbox', subject: 'outbox', detail: `${outbox} rows` }
  for (const { name, maxRssBytes, endedBy } of processes) {
    if (endedBy !== 0) yield { rule: 'did not drain', subject: name, detail: `ended with ${endedBy}` }
    if (maxRssBytes > MAX_RSS_BYTES)
      yield { rule: 'too large', subject: name, detail: `${Math.round(maxRssBytes / MB)} MB of memory` }
  }
  for (const { name, bytes } of files)
    if (name.endsWith('-wal') && bytes > MAX_LOG_BYTES)
      yield { rule: 'too large', subject: name, detail: `${Math.round(bytes / MB)} MB` }
}
