import type { Violation } from './check/violation.ts'
import type { Plan } from './plan.ts'
import type { Run } from './run.ts'

/** A short table for people: what was injected, how much was done, what was found. */
export function describeRun(plan: Plan, run: Run, violations: readonly Violation[]): string {
  const { snapshot, injected, ownEnds } = run
  const rows = [...injected].sort(([a], [b]) => a.localeCompare(b))
  const width = Math.max(...rows.map(([kind]) => kind.length), 10)
  const byRule = Map.groupBy(violations, ({ rule }) => rule)
  return [
    '',
    ...rows.map(
      ([kind, { injected, missed }]) => `${kind.padEnd(width)}  ${injected}${missed > 0 ? `  (${missed} missed)` : ''}`,
    ),
    '',
    `${count(snapshot.history, ({ kind }) => kind === 'submit')} submissions, ${snapshot.operations.length} operations, ${snapshot.results.length} results, ${snapshot.messages.length} messages, ${snapshot.events.length} events, ${snapshot.deadLetters.length} dead letters`,
    `${ownEnds.length} processes ended by themselves${ownEnds.length > 0 ? `: ${ownEnds.map(({ service, code }) => `${service} ${code}`).join(', ')}` : ''}`,
    ...[...byRule].map(
      ([rule, found]) => `${rule}: ${found.length}, the first: ${found[0]?.subject} ${found[0]?.detail}`,
    ),
    `${violations.length} violations (${plan.parts} parts, seed ${plan.seed}, ${plan.lengthMs / 1000} s)`,
  ].join('\n')
}

/** The same for programs, with every violation. */
export function toJson(plan: Plan, run: Run, violations: readonly Violation[]): string {
  const { parts, seed, lengthMs } = plan
  const { snapshot, injected, ownEnds } = run
  const { operations, results, messages, events, deadLetters, history, processes, files } = snapshot
  const counts = {
    entries: history.length,
    operations: operations.length,
    results: results.length,
    messages: messages.length,
    events: events.length,
    deadLetters: deadLetters.length,
  }
  return `${JSON.stringify({ parts, seed, lengthMs, injected: Object.fromEntries(injected), counts, processes, files, ownEnds, violations }, null, 2)}\n`
}

function count<Item>(items: readonly Item[], is: (item: Item) => boolean): number {
  return items.filter(is).length
}
