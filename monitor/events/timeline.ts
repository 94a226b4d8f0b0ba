import type { messages } from '@posta/common/messages/events.ts'
import * as v from 'valibot'
import type { Events } from './events.ts'
import { type ShownEvent, show } from './record.ts'

const Step = v.object({
  id: v.string(),
  type: v.string(),
  time: v.string(),
  topic: v.string(),
  partition: v.number(),
  offset: v.number(),
  sincePreviousMs: v.pipe(v.number(), v.metadata({ description: 'From the time of the step before, never negative.' })),
  clockSkew: v.optional(
    v.pipe(
      v.literal(true),
      v.metadata({ description: 'The step before has a later time: two machines have different clocks.' }),
    ),
  ),
})

export const Timeline = v.object({
  operation: v.string(),
  user: v.optional(v.string()),
  totalMs: v.pipe(v.number(), v.metadata({ description: 'From the first step to the last, never negative.' })),
  items: v.array(Step),
})
export type Timeline = v.InferOutput<typeof Timeline>

/** An operation has a handful of events; each redrive adds a few. */
const MAX_STEPS = 200

/** The timeline of an operation, or undefined where there is none, or none for this user. `user` undefined: anyone's. */
export function createTimeline(events: Pick<Events, 'list'>) {
  return async (operation: string, user: string | undefined): Promise<Timeline | undefined> => {
    const found = await events.list({ operation }, { limit: MAX_STEPS })
    const users = new Set(found.flatMap((event) => event.user ?? []))
    // Events of an operation without a user (what could not be read has none) belong to whoever the others name.
    if (found.length === 0 || (user !== undefined && !(users.size === 1 && users.has(user)))) return undefined
    const [owner] = users
    return { operation, ...(owner !== undefined && { user: owner }), ...stepsOf(found.map(show)) }
  }
}

/** In causal order, whatever the clocks of the machines said. */
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
 * An operation goes through rounds: the first begins with its request, each further one with a redrive. In a round the
 * message is set aside or not, and then there is a result. What a redrive caused names it; a dead letter is set aside in
 * the round before it is redriven; where nothing tells, the time does.
 */
function inCausalOrder(events: readonly ShownEvent[]): ShownEvent[] {
  const redrives = events.filter(({ type }) => type === REDRIVEN).toSorted(byTime)
  const roundOf = (event: ShownEvent): number => {
    const own = redrives.findIndex(({ id }) => id === event.id || id === event.redrive)
    if (own !== -1) return own + 1
    if (event.type !== DEAD_LETTERED) return 0
    const deadLetter = deadLetterOf(event)
    const redriven = redrives.findIndex((redrive) => deadLetterOf(redrive) === deadLetter)
    return redriven === -1 ? redrives.filter((redrive) => byTime(redrive, event) < 0).length : redriven
  }
  return events
    .map((event) => ({ event, round: roundOf(event), rank: RANKS.indexOf(event.type) }))
    .toSorted((a, b) => a.round - b.round || a.rank - b.rank || byTime(a.event, b.event))
    .map(({ event }) => event)
}

const REDRIVEN = 'posta.dead-letter.redriven' satisfies keyof typeof messages
const DEAD_LETTERED = 'posta.message.dead-lettered' satisfies keyof typeof messages
const RANKS: readonly string[] = [
  'posta.operation.requested',
  REDRIVEN,
  DEAD_LETTERED,
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
