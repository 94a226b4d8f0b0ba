import { occurrenceOf } from '@posta/common/messages/dead-letter.ts'
import type { MessageType } from '@posta/common/messages/events.ts'
import * as v from 'valibot'
import type { ShownEvent } from './show.ts'

const REQUESTED = 'posta.operation.requested' satisfies MessageType
const REDRIVEN = 'posta.dead-letter.redriven' satisfies MessageType
const DISCARDED = 'posta.dead-letter.discarded' satisfies MessageType
const ABANDONED = 'posta.operation.abandoned' satisfies MessageType
const PROGRESSED = 'posta.operation.progressed' satisfies MessageType
const DEAD_LETTERED = 'posta.message.dead-lettered' satisfies MessageType
const FAILED = 'posta.operation.failed' satisfies MessageType
const SUCCEEDED = 'posta.operation.succeeded' satisfies MessageType

/** The order within a round. */
const RANKS: readonly string[] = [
  REQUESTED,
  REDRIVEN,
  DISCARDED,
  ABANDONED,
  PROGRESSED,
  DEAD_LETTERED,
  FAILED,
  SUCCEEDED,
]

/** Clocks of two machines differ by less. */
const CLOCKS_DIFFER_MS = 10_000

const optional = <Schema extends v.GenericSchema>(schema: Schema) => v.fallback(v.optional(schema), undefined)
/** What an event's place follows from. The data of an event that was altered says nothing. */
const Told = v.fallback(
  v.object({
    n: optional(v.number()),
    deadLetter: optional(v.string()),
    error: optional(v.object({ code: v.string() })),
  }),
  {},
)

interface Placeable {
  readonly event: ShownEvent
  readonly id: string
  readonly type: string
  readonly redrive: string | undefined
  readonly timeMs: number
  readonly deadLetter: string | undefined
  /** The number of the run's record that it tells of. A decision has that of its dead letter. */
  readonly n: number | undefined
  /** Of a failure. */
  readonly code: string | undefined
}

/**
 * The events of one operation in causal order, even where the clocks of the machines differ.
 *
 * They are put into rounds. The first round begins with the request. Each decision of an operator about a dead letter begins
 * another. Within a round the order is that of `RANKS`; the records of a run, its dead letters among them, are ordered by
 * their numbers. Which round an event is in:
 * - An event that names the decision which caused it is in the round of that decision.
 * - A dead letter is in the round before the decision about it. One that nobody decided about is placed by its time.
 * - Another record of a run is placed by its time, but never in an earlier round than a record with a lower number.
 * - The outcome of a run is placed by its time, but never in an earlier round than the run's last record.
 * - Any other is in the first round.
 *
 * An event of another type, for example a cancel or a signal, stands after the request, before the first event that is later.
 */
export function inCausalOrder(events: readonly ShownEvent[]): ShownEvent[] {
  const all = events.map(toPlaceable).toSorted(byTime)
  const isLoose = ({ type, n }: Placeable) => !RANKS.includes(type) || (type === PROGRESSED && n === undefined)
  const fixed = all.filter((each) => !isLoose(each))
  const roundOf = roundsOf(fixed)
  const ordered = fixed
    .map((each) => ({ each, round: roundOf(each), rank: RANKS.indexOf(isOfRun(each) ? PROGRESSED : each.type) }))
    .toSorted((a, b) => a.round - b.round || a.rank - b.rank || byN(a.each, b.each) || byTime(a.each, b.each))
    .map(({ each }) => each)
  const first = ordered.findIndex(({ type }) => type === REQUESTED) + 1
  for (const loose of all.filter(isLoose)) {
    const later = ordered.findIndex((each, index) => index >= first && byTime(each, loose) > 0)
    ordered.splice(later === -1 ? ordered.length : later, 0, loose)
  }
  return ordered.map(({ event }) => event)
}

/** @param events ordered by time */
function roundsOf(events: readonly Placeable[]): (event: Placeable) => number {
  const turns = events.filter(({ type }) => type === REDRIVEN || type === DISCARDED)
  /** The round that the last such decision begins; 0 if there is none. */
  const roundBegunBy = (is: (turn: Placeable) => boolean) => turns.findLastIndex(is) + 1
  const byName = ({ id, type, redrive, deadLetter }: Placeable) =>
    roundBegunBy(
      (turn) => turn.id === id || turn.id === redrive || (type === ABANDONED && turn.deadLetter === deadLetter),
    )
  const byClock = (event: Placeable) => roundBegunBy((turn) => isAfter(event, turn))

  function deadLetterRound(event: Placeable): number {
    const turn = turns.findIndex(({ deadLetter }) => deadLetter !== undefined && deadLetter === event.deadLetter)
    return turn === -1 ? byClock(event) : turn
  }

  const run = events.filter(isOfRun)
  const roundsOfRun = new Map<string, number>()
  let reached = 0
  for (const each of run.toSorted(byN)) {
    const round = each.type === DEAD_LETTERED ? deadLetterRound(each) : byClock(each)
    reached = Math.max(reached, round)
    roundsOfRun.set(each.id, reached)
  }

  function outcomeRound(outcome: Placeable): number {
    const named = byName(outcome)
    const isDead = outcome.code === 'dead-lettered'
    // A request that was dead-lettered may have a run after its redrive.
    const hasRun = isDead ? run.some(({ timeMs }) => timeMs < outcome.timeMs) : run.length > 0
    if (!hasRun) return named
    const abandoned = isDead ? roundBegunBy(({ type, n }) => type === DISCARDED && n !== undefined) : 0
    // The outcome of a run names the redrive that began the run, and none of those that made it go on.
    return Math.max(named, reached, abandoned, byClock(outcome))
  }

  return (event) => {
    if (event.type === REQUESTED) return 0
    if (event.type === FAILED || event.type === SUCCEEDED) return outcomeRound(event)
    return roundsOfRun.get(event.id) ?? (event.type === DEAD_LETTERED ? deadLetterRound(event) : byName(event))
  }
}

/**
 * Whether an event came after a decision, which has the time of another machine's clock. A run that is stuck records nothing
 * until the decision about it, unless it is cancelled or times out.
 */
function isAfter(event: Placeable, turn: Placeable): boolean {
  if (event.n === undefined || turn.n === undefined) return event.timeMs > turn.timeMs
  return event.n > turn.n && event.timeMs > turn.timeMs - CLOCKS_DIFFER_MS
}

/** Whether it tells of a record of the operation's run. */
function isOfRun({ type, n }: Placeable): boolean {
  return n !== undefined && (type === PROGRESSED || type === DEAD_LETTERED)
}

function toPlaceable(event: ShownEvent): Placeable {
  const { id, type, redrive, time } = event
  const { deadLetter, n: told, error } = v.parse(Told, event.data)
  // The dead letter of a run is about the record of this number.
  const n = told ?? (deadLetter === undefined ? undefined : occurrenceOf(deadLetter))
  return { event, id, type, redrive, timeMs: Date.parse(time), deadLetter, n, code: error?.code }
}

function byTime(a: Placeable, b: Placeable): number {
  return a.timeMs - b.timeMs || (a.id < b.id ? -1 : 1)
}

/** Of two of one rank. */
function byN(a: Placeable, b: Placeable): number {
  return (a.n ?? 0) - (b.n ?? 0)
}
