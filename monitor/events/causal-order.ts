import type { MessageType } from '@posta/common/messages/events.ts'
import { topics } from '@posta/common/messages/topics.ts'
import * as v from 'valibot'
import type { ShownEvent } from './show.ts'

const REQUESTED = 'posta.operation.requested' satisfies MessageType
const REDRIVEN = 'posta.dead-letter.redriven' satisfies MessageType
const DISCARDED = 'posta.dead-letter.discarded' satisfies MessageType
const PROGRESSED = 'posta.operation.progressed' satisfies MessageType
const DEAD_LETTERED = 'posta.message.dead-lettered' satisfies MessageType
const FAILED = 'posta.operation.failed' satisfies MessageType
const SUCCEEDED = 'posta.operation.succeeded' satisfies MessageType

/** The order within a round. */
const RANKS: readonly string[] = [
  REQUESTED,
  REDRIVEN,
  DISCARDED,
  'posta.operation.abandoned',
  PROGRESSED,
  DEAD_LETTERED,
  FAILED,
  SUCCEEDED,
]

/** Clocks of two machines differ by less. */
const CLOCKS_DIFFER_MS = 60_000

const optional = <Schema extends v.GenericSchema>(schema: Schema) => v.fallback(v.optional(schema), undefined)
/** What an event's place follows from. The data of an event that was altered says nothing. */
const Told = v.fallback(
  v.object({
    n: optional(v.number()),
    deadLetter: optional(v.string()),
    topic: optional(v.string()),
    error: optional(v.object({ code: v.string() })),
  }),
  {},
)

interface Placeable extends v.InferOutput<typeof Told> {
  readonly event: ShownEvent
  readonly id: string
  readonly type: string
  readonly redrive: string | undefined
  readonly timeMs: number
}

/** A decision about a dead letter. */
interface Turn extends Placeable {
  /** When the dead letter, if it is of a request, was set aside. */
  readonly stuckMs: number | undefined
}

/**
 * The events of one operation in causal order, even where the clocks of the machines differ.
 *
 * An operation goes through rounds: the first begins with its request, each later one with a decision about a dead letter.
 * Within a round the order is that of `RANKS`, and progress stands in the order of its `n`. The round of an event is
 * - that of the decision which caused it, where it names one;
 * - where it tells of a dead letter, the round before the decision about that, or without a decision that of its time;
 * - of progress that of its time, and none before the round of progress with a lower `n`. What a stuck run did before the
 *   decision, since it was cancelled, stands between dead letter and decision;
 * - of a run's outcome that of its time, and none before the round of the last progress;
 * - of a failure by dead letter without a run the first.
 *
 * What is of no such type, for example a cancel or a signal, stands after the request and before the first event of a later
 * time.
 */
export function inCausalOrder(events: readonly ShownEvent[]): ShownEvent[] {
  const all = events.map(toPlaceable).toSorted(byTime)
  const isLoose = ({ type, n }: Placeable) => !RANKS.includes(type) || (type === PROGRESSED && n === undefined)
  const fixed = all.filter((each) => !isLoose(each))
  const roundOf = roundsOf(fixed)
  const ordered = fixed
    .map((each) => ({ each, round: roundOf(each), rank: RANKS.indexOf(each.type) }))
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
  const deadLetters = events.filter(({ type, topic }) => type === DEAD_LETTERED && topic === topics.requests)
  const turns = events
    .filter(({ type }) => type === REDRIVEN || type === DISCARDED)
    .map((each): Turn => ({ ...each, stuckMs: deadLetters.find((letter) => isAbout(letter, each))?.timeMs }))
  /** The round that the last such turn begins; 0 if there is none. */
  const roundBegunBy = (is: (turn: Turn) => boolean) => turns.findLastIndex(is) + 1
  const byName = ({ id, redrive }: Placeable) =>
    roundBegunBy((turn) => turn.id === id || turn.id === redrive || `${turn.deadLetter}.abandoned` === id)
  const byClock = ({ timeMs }: Placeable) => roundBegunBy((turn) => isAfter(timeMs, turn))

  function deadLetterRound(event: Placeable): number {
    const turn = turns.findIndex((each) => isAbout(event, each))
    return turn === -1 ? byClock(event) : turn
  }

  const progress = events.filter(({ type }) => type === PROGRESSED).toSorted(byN)
  const firstProgressMs = Math.min(...progress.map(({ timeMs }) => timeMs))
  const stuck = deadLetters.map((each) => ({ round: deadLetterRound(each), timeMs: each.timeMs }))
  const roundsOfProgress = new Map<string, number>()
  let reached = 0
  for (const each of progress) {
    const round = byClock(each)
    // A run that is stuck can be cancelled, and is then undone without a decision about its dead letter.
    const wasStuck = stuck.some((at) => at.round === round && at.timeMs < each.timeMs)
    reached = byName(each) || Math.max(reached, wasStuck ? round + 0.5 : round)
    roundsOfProgress.set(each.id, reached)
  }

  function outcomeRound(outcome: Placeable): number {
    const named = byName(outcome)
    if (outcome.error?.code === 'dead-lettered' && !(firstProgressMs < outcome.timeMs)) {
      // The request was dead-lettered, or its run was stuck at once and abandoned.
      const isBefore = ({ type, timeMs }: Turn) => type === DISCARDED && timeMs < outcome.timeMs
      return Math.max(named, roundBegunBy(isBefore))
    }
    // The outcome of a run names the redrive that began the run, and none of those that made it go on.
    return progress.length > 0 ? Math.max(named, reached, byClock(outcome)) : named || byClock(outcome)
  }

  return (event) => {
    if (event.type === REQUESTED) return 0
    if (event.type === PROGRESSED) return roundsOfProgress.get(event.id) ?? 0
    if (event.type === DEAD_LETTERED) return deadLetterRound(event)
    if (event.type === FAILED || event.type === SUCCEEDED) return outcomeRound(event)
    return byName(event)
  }
}

const isAbout = (a: Placeable, b: Placeable) => a.deadLetter !== undefined && a.deadLetter === b.deadLetter

/**
 * Whether processor did something after a decision. Both its time and `stuckMs` are by a processor's clock, the time of the
 * decision is by monitor's. A run that is stuck does nothing until the decision, unless it is cancelled or times out.
 */
function isAfter(timeMs: number, { stuckMs, ...turn }: Turn): boolean {
  return stuckMs === undefined ? timeMs > turn.timeMs : timeMs > Math.max(stuckMs, turn.timeMs - CLOCKS_DIFFER_MS)
}

function toPlaceable(event: ShownEvent): Placeable {
  const { id, type, redrive, time, data } = event
  return { ...v.parse(Told, data), event, id, type, redrive, timeMs: Date.parse(time) }
}

function byTime(a: Placeable, b: Placeable): number {
  return a.timeMs - b.timeMs || (a.id < b.id ? -1 : 1)
}

/** Of two that are progress. */
function byN(a: Placeable, b: Placeable): number {
  return (a.n ?? 0) - (b.n ?? 0)
}
