import { messages } from '@posta/common/messages/events.ts'
import type { Authenticated, Caller, TokenVerifier } from '@posta/common/service/auth.ts'
import { decodeCursor, pageOf, pageQuery, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { described, Id, Time } from '@posta/common/service/query.ts'
import { eventStream, json, routesOf } from '@posta/common/service/route.ts'
import { headOfStream, streamEvents } from '@posta/common/service/stream.ts'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Events } from './events.ts'
import { ShownEvent, show } from './show.ts'
import { type createStats, Stats } from './stats.ts'
import type { EventStream } from './stream.ts'
import { type createTimeline, Timeline } from './timeline.ts'

const filters = {
  type: v.optional(v.picklist(Object.keys(messages))),
  user: v.optional(Id),
  operation: v.optional(Id),
}
const StreamQuery = v.strictObject(filters)
const EventsQuery = v.strictObject({
  ...pageQuery,
  ...filters,
  from: v.optional(described(Time, 'Only events of this time or later.')),
  to: v.optional(described(Time, 'Only events before this time.')),
})
const EventPosition = v.object({ timeMs: v.number(), id: v.string() })

/** @param options.closing ends the streams when the service closes */
export function eventRoutes(options: {
  events: Pick<Events, 'list' | 'get'>
  timeline: ReturnType<typeof createTimeline>
  stats: ReturnType<typeof createStats>
  stream: EventStream
  verify: TokenVerifier
  closing: AbortSignal
}): Hono<Authenticated> {
  const { events, timeline, stats, stream, verify, closing } = options
  const route = routesOf('events', verify)

  return new Hono<Authenticated>()
    .get(
      '/events',
      ...route({
        summary: 'Events, newest first',
        description: "Your own; an operator gets everyone's. If you ask for another user's, the list is empty.",
        caller: 'user',
        query: EventsQuery,
        answers: { 200: json(pageOf(ShownEvent), 'A page of events.') },
      }),
      async (c) => {
        const { limit, cursor, from, to, type, user, operation } = c.req.valid('query')
        const before = decodeCursor(EventPosition, cursor)
        const own = ownOf(c.var.caller)
        if (own !== undefined && user !== undefined && user !== own) return c.json({ items: [] })
        const found = await events.list(
          { type, user: own ?? user, operation, fromMs: from, untilMs: to },
          { limit: limit + 1, before },
        )
        return c.json(toPage(found, limit, show, ({ timeMs, id }) => ({ timeMs, id })))
      },
    )
    .get(
      '/events/stream',
      ...route({
        summary: 'Events as they are stored',
        description:
          'Server-sent events. `ready` comes first. Each `event` is one as in `GET /events`; read them at your own pace, none is left out. To go on after an event, also on a new connection, send its id as `Last-Event-ID`. If more than 10,000 events were stored since then, `skipped` comes in place of `ready`, and those are not sent. After 15 minutes comes `end`: connect again with a fresh access token.',
        caller: 'operator',
        query: StreamQuery,
        parameters: [{ in: 'header', name: 'Last-Event-ID', schema: { type: 'string' } }],
        answers: { 200: eventStream('The events.') },
        problems: ['too-many-requests', 'overloaded'],
      }),
      async (c) => {
        // Before `follow`, which counts a client: nobody reads the body of a HEAD, so that client would never leave.
        if (c.req.method === 'HEAD') return headOfStream(c)
        const following = await stream.follow(c.var.caller.user, c.req.valid('query'), c.req.header('last-event-id'))
        return streamEvents(c, closing, following)
      },
    )
    .get(
      '/events/:id',
      ...route({
        summary: 'An event',
        description: "One of your own; an operator gets anyone's.",
        caller: 'user',
        answers: { 200: json(ShownEvent, 'The event.') },
        problems: ['not-found'],
      }),
      async (c) => {
        const event = await events.get(c.req.param('id'))
        const own = ownOf(c.var.caller)
        if (!event || (own !== undefined && event.user !== own))
          throw new Problem('not-found', 'There is no such event.')
        return c.json(show(event))
      },
    )
    .get(
      '/operations/:id/timeline',
      ...route({
        summary: 'What happened to an operation, in causal order',
        description: "One of your own; an operator gets anyone's.",
        caller: 'user',
        answers: { 200: json(Timeline, 'The timeline.') },
        problems: ['not-found'],
      }),
      async (c) => {
        const found = await timeline(c.req.param('id'), ownOf(c.var.caller))
        if (!found) throw new Problem('not-found', 'There is no such operation.')
        return c.json(found)
      },
    )
    .get(
      '/stats',
      ...routesOf(
        'operating',
        verify,
      )({
        summary: 'What happened in the last hour',
        caller: 'operator',
        answers: { 200: json(Stats, 'How many events there were, and how long operations took.') },
      }),
      async (c) => c.json(await stats()),
    )
}

/** The user whose events a caller may see; undefined: everyone's. */
function ownOf({ user, role }: Caller): string | undefined {
  return role === 'operator' ? undefined : user
}
