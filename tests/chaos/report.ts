import { rules, type Violation } from './check/violation.ts'
import type { Plan } from './plan.ts'
import type { Run } from './run-plan.ts'

/** A short table for people: what was injected, how much was done, what was found. */
export function describeRun(plan: Plan, run: Run, violations: readonly Violation[]): string {
  const { snapshot, injected, ownEnds } = run
  const { history, operations, results, runs, ledger, messages, events, deadLetters } = snapshot
  const rows = [...injected].sort(([a], [b]) => a.localeCompare(b))
  const width = Math.max(...rows.map(([kind]) => kind.length), 10)
  const submissions = history.filter(({ kind }) => kind === 'submit').length
  const ends = ownEnds.map(({ service, code }) => `${service} ${code}`).join(', ')
  return [
    '',
    ...rows.map(
      ([kind, { injected, missed }]) => `${kind.padEnd(width)}  ${injected}${missed > 0 ? `  (${missed} missed)` : ''}`,
    ),
    '',
    `${submissions} submissions, ${operations.length} operations, ${results.length} results, ` +
      `${messages.length} messages, ${events.length} events, ${deadLetters.length} dead letters`,
    `${runs.length} runs with ${runs.reduce((sum, { records }) => sum + records.length, 0)} records, ` +
      `${ledger.reservations.length} reservations, ${ledger.payments.length} payments, ` +
      `${history.filter(({ kind }) => kind === 'tell').length} cancels and answers`,
    `${ownEnds.length} processes ended by themselves${ends && `: ${ends}`}`,
    ...[...Map.groupBy(violations, ({ rule }) => rule)].map(
      ([rule, found]) =>
        `${rule}: ${found.length} (each ${rules[rule]}). The first: ${found[0]?.subject} ${found[0]?.detail}`,
    ),
    `${violations.length} violations (${plan.parts} parts, seed ${plan.seed}, ${plan.lengthMs / 1000} s)`,
  ].join('\n')
}

/** The same as JSON, with every violation. */
export function toJson({ parts, seed, lengthMs }: Plan, run: Run, violations: readonly Violation[]): string {
  const { snapshot, injected, ownEnds } = run
  const { history, operations, results, runs, ledger, messages, events, deadLetters, processes, files } = snapshot
  const lists = { entries: history, operations, results, runs, ...ledger, messages, events, deadLetters }
  const counts = Object.fromEntries(Object.entries(lists).map(([name, { length }]) => [name, length]))
  const report = { parts, seed, lengthMs, injected: Object.fromEntries(injected), counts }
  return `${JSON.stringify({ ...report, processes, files, ownEnds, violations }, null, 2)}\n`
}
