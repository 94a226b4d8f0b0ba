import type { messages } from '@posta/common/messages/events.ts'
import * as v from 'valibot'
import { described } from '../query.ts'
import type { Events } from './events.ts'
import { type ShownEvent, show } from './show.ts'

const Step = v.object({
  id: v.string(),
  type: v.string(),
  time: v.string(),
  topic: v.string(),
  partition: v.number(),
  offset: v.number(),
  sincePreviousMs: described(v.number(), 'From the time of the step before, never negative.'),
  clockSkew: v.optional(
    described(v.literal(true), 'The step before has a later time: the clocks of two machines differ.'),
  ),
})

export const Timeline = v.object({
  operation: v.string(),
  user: v.optional(v.string()),
  totalMs: described(v.number(), 'From the first step to the last, never negative.'),
  items: v.array(Step),
})
export type Timeline = v.InferOutput<typeof Timeline>

/** Far more than an operation has: a handful of events, and a few for each redrive. */
const MAX_STEPS = 200

/**
 * The timeline of a user's operation, or of anyone's where `user` is undefined. Undefined where there is none, or it is
 * another user's.
 */
export function createTimeline(events: Pick<Events, 'list'>) {
  return async (operation: string, user: string | undefined): Promise<Timeline | undefined> => {
    const found = await events.list({ operation }, { limit: MAX_STEPS })
    const users = new Set(found.flatMap((event) => event.user ?? []))
    // An event without a user (of a message that could not be read) belongs to the user that the other events name.
    if (found.length === 0 || (user !== undefined && !(users.size === 1 && users.has(user)))) return undefined
    const [owner] = users
    return { operation, ...(owner !== undefined && { user: owner }), ...stepsOf(found.map(show)) }
  }
}

/** The steps in causal order, even where the clocks of the machines differ. */
export function stepsOf(events: readonly ShownEvent[]): Pick<Timeline, 'totalMs' | 'items'> {
  const ordered = inCausalOrder(events)
  const items = ordered.map(({ id, type, time, topic, partition, offset }, index) => {
    const before = ordered[index - 1]
    const sinceMs = before ? Date.parse(time) - Date.parse(before.time) : 0
    const step = { id, type, time, topic, partition, offset, sincePreviousMs: Math.max(0, sinceMs) }
    return sinceMs < 0 ? { ...step, clockSkew: true as const } : step
  })
  const [first, last] = [ordered[0], ordered.at(-1)]
  return { totalMs: first && last ? Math.max(0, Date.parse(last.time) - Date.parse(first.time)) : 0, items }
}

/**
 * An operation goes through rounds: the first begins with its request, each later one with a redrive. Within a round the
 * order is that of `RANKS`. The round of an event is
 * - that of the redrive which caused it, where it names one;
 * - where it tells of a dead letter, the round before that was redriven; if it was not, the round of the event's time;
 * - otherwise the first.
 */
function inCausalOrder(events: readonly ShownEvent[]): ShownEvent[] {
  const redrives = events.filter(({ type }) => type === REDRIVEN).toSorted(byTime)
  const roundOf = (event: ShownEvent): number => {
    const cause = redrives.findIndex(({ id }) => id === event.id || id === event.redrive)
    if (cause !== -1) return cause + 1
    const deadLetter = deadLetterOf(event)
    if (deadLetter === undefined) return 0
    const redrive = redrives.findIndex((each) => deadLetterOf(each) === deadLetter)
    return redrive === -1 ? redrives.filter((each) => byTime(each, event) < 0).length : redrive
  }
  return events
    .map((event) => ({ event, round: roundOf(event), rank: RANKS.indexOf(event.type) }))
    .toSorted((a, b) => a.round - b.round || a.rank - b.rank || byTime(a.event, b.event))
    .map(({ event }) => event)
}

const REDRIVEN = 'posta.dead-letter.redriven' satisfies keyof typeof messages
const RANKS: readonly string[] = [
  'posta.operation.requested',
  REDRIVEN,
  'posta.message.dead-lettered',
  'posta.operation.failed',
  'posta.operation.succeeded',
  'posta.dead-letter.discarded',
] satisfies (keyof typeof messages)[]

function byTime(a: ShownEvent, b: ShownEvent): number {
  return Date.parse(a.time) - Date.parse(b.time) || (a.id < b.id ? -1 : 1)
}

function deadLetterOf({ data }: ShownEvent): unknown {
  return typeof data === 'object' && data !== null && 'deadLetter' in data ? data.deadLetter : undefined
}
