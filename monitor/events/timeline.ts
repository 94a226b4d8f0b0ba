import { setImmediate } from 'node:timers/promises'
import { described } from '@posta/common/service/query.ts'
import * as v from 'valibot'
import { inCausalOrder } from './causal-order.ts'
import type { EventPosition, Events } from './events.ts'
import { type ShownEvent, show } from './show.ts'

/** What an item tells besides what every event has: each member where the event's data has it. */
const more = {
  step: described(v.string(), 'Of `posta.operation.progressed`: the step, or wait, of the operation.'),
  status: described(v.string(), 'Of `posta.operation.progressed`: `done`, `undone` or `waiting`.'),
  signal: described(v.string(), 'Of `posta.operation.signalled`: which answer was given.'),
  by: described(v.string(), 'The id of the user who asked for it, cancelled, answered or decided.'),
}
const More = v.fallback(v.partial(v.object(more)), {})

const Item = v.object({
  id: v.string(),
  type: v.string(),
  time: v.string(),
  topic: v.string(),
  partition: v.number(),
  offset: v.number(),
  sincePreviousMs: described(v.number(), 'From the time of the item before, never negative.'),
  clockSkew: v.optional(
    described(v.literal(true), 'The item before has a later time: the clocks of two machines differ.'),
  ),
  ...v.partial(v.object(more)).entries,
})

export const Timeline = v.object({
  operation: v.string(),
  user: v.optional(v.string()),
  totalMs: described(v.number(), 'From the first item to the last, never negative.'),
  items: v.array(Item),
  incomplete: v.optional(
    described(
      v.literal(true),
      'The operation has more than 5,000 events: the oldest are left out. `GET /events?operation=` lists them all.',
    ),
  ),
})
export type Timeline = v.InferOutput<typeof Timeline>

/**
 * An operation has at most 1,000 steps, each with up to three events: waiting, done, undone. To these come its request, its
 * outcome, its cancel and its signals, and two or three events for each dead letter.
 */
const MAX_EVENTS = 5000
const PAGE = 500

/**
 * The timeline of a user's operation, or of anyone's where `user` is undefined. Undefined where there is none, or it is
 * another user's.
 */
export function createTimeline(events: Pick<Events, 'list'>) {
  /** The newest events of an operation, one more than a timeline has at most. */
  async function read(operation: string): Promise<ShownEvent[]> {
    const found: ShownEvent[] = []
    for (let before: EventPosition | undefined; ; ) {
      const limit = Math.min(PAGE, MAX_EVENTS + 1 - found.length)
      const page = await events.list({ operation }, { limit, before })
      found.push(...page.map(show))
      before = page.at(-1)
      if (page.length < limit || found.length > MAX_EVENTS) return found
      // An embedded store answers synchronously: others get their turn between two pages.
      await setImmediate()
    }
  }

  return async (operation: string, user: string | undefined): Promise<Timeline | undefined> => {
    const found = await read(operation)
    const users = new Set(found.flatMap((event) => event.user ?? []))
    // An event without a user (of a message that could not be read) belongs to the user that the other events name.
    if (found.length === 0 || (user !== undefined && !(users.size === 1 && users.has(user)))) return undefined
    const [owner] = users
    return {
      operation,
      ...(owner !== undefined && { user: owner }),
      ...itemsOf(found.slice(0, MAX_EVENTS)),
      ...(found.length > MAX_EVENTS && { incomplete: true }),
    }
  }
}

/** The items in causal order, even where the clocks of the machines differ. */
export function itemsOf(events: readonly ShownEvent[]): Pick<Timeline, 'totalMs' | 'items'> {
  const ordered = inCausalOrder(events)
  const items = ordered.map(({ id, type, time, topic, partition, offset, data }, index) => {
    const before = ordered[index - 1]
    const sinceMs = before ? Date.parse(time) - Date.parse(before.time) : 0
    const item = { id, type, time, topic, partition, offset, sincePreviousMs: Math.max(0, sinceMs) }
    return { ...item, ...(sinceMs < 0 && { clockSkew: true as const }), ...v.parse(More, data) }
  })
  const [first, last] = [ordered[0], ordered.at(-1)]
  return { totalMs: first && last ? Math.max(0, Date.parse(last.time) - Date.parse(first.time)) : 0, items }
}
