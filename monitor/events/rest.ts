import { messages } from '@posta/common/messages/events.ts'
import {
  type Authenticated,
  bearer,
  type Caller,
  operatorsOnly,
  type TokenVerifier,
} from '@posta/common/service/auth.ts'
import { jsonResponse, noStore, problemResponses, validate } from '@posta/common/service/http.ts'
import { decodeCursor, pageOf, pageQuery, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { headOfStream, streamEvents } from '@posta/common/service/stream.ts'
import { Hono } from 'hono'
import { describeRoute } from 'hono-openapi'
import * as v from 'valibot'
import { Audit, type createAudit } from '../audit/verify.ts'
import { described, Id, security, Time } from '../query.ts'
import type { Events } from './events.ts'
import { ShownEvent, show } from './record.ts'
import { type createStats, Stats } from './stats.ts'
import type { EventStream } from './stream.ts'
import { type createTimeline, Timeline } from './timeline.ts'

const filters = {
  type: v.optional(v.picklist(Object.keys(messages))),
  user: v.optional(Id),
  operation: v.optional(Id),
}

const EventsQuery = v.strictObject({
  ...pageQuery,
  ...filters,
  from: v.optional(described(Time, 'The first time that counts.')),
  to: v.optional(described(Time, 'The first time that no longer counts.')),
})
const EventPosition = v.object({ timeMs: v.number(), id: v.string() })
const StreamQuery = v.strictObject(filters)
const AuditQuery = v.strictObject({
  cursor: v.optional(described(v.string(), '`next` of an answer before.')),
})

const eventStream = {
  description: 'Events.',
  content: { 'text/event-stream': { schema: { type: 'string' as const } } },
}

/** @param parts.closing ends the streams when the service closes. */
export function routes(parts: {
  events: Pick<Events, 'list' | 'get'>
  timeline: ReturnType<typeof createTimeline>
  stats: ReturnType<typeof createStats>
  audit: ReturnType<typeof createAudit>
  stream: EventStream
  verify: TokenVerifier
  closing: AbortSignal
}): Hono<Authenticated> {
  const { events, timeline, stats, audit, stream, verify, closing } = parts
  const signedIn = bearer(verify)

  return new Hono<Authenticated>()
    .get(
      '/events',
      describeRoute({
        tags: ['events'],
        security,
        summary: 'Events, newest first',
        description: "Your own; for operators everyone's. Of another user there is nothing here for you.",
        responses: {
          200: jsonResponse(pageOf(ShownEvent), 'A page of them.'),
          ...problemResponses('malformed-request', 'invalid-token', 'invalid-input'),
        },
      }),
      signedIn,
      noStore,
      validate('query', EventsQuery),
      async (c) => {
        const { limit, cursor, from, to, type, user, operation } = c.req.valid('query')
        const before = decodeCursor(EventPosition, cursor)
        const own = ownOf(c.var.caller)
        if (own !== undefined && user !== undefined && user !== own) return c.json({ items: [] })
        const found = await events.list(
          { type, user: own ?? user, operation, fromMs: from, untilMs: to },
          { limit: limit + 1, ...(before && { before }) },
        )
        return c.json(toPage(found, limit, show, ({ timeMs, id }) => ({ timeMs, id })))
      },
    )
    .get(
      '/events/stream',
      describeRoute({
        tags: ['events'],
        security,
        summary: 'Events as they are stored',
        description:
          'Server-sent events `event`, each as in `GET /events`. `Last-Event-ID` goes on where a stream ended: `skipped` says if that is too far back. A client that reads too slowly is sent `overrun` and cut off; after 15 minutes comes `end`: connect again.',
        parameters: [{ in: 'header', name: 'Last-Event-ID', schema: { type: 'string' } }],
        responses: {
          200: eventStream,
          ...problemResponses('malformed-request', 'invalid-token', 'forbidden', 'invalid-input', 'overloaded'),
        },
      }),
      signedIn,
      operatorsOnly,
      validate('query', StreamQuery),
      async (c) => {
        if (c.req.method === 'HEAD') return headOfStream(c)
        const following = await stream.follow(c.req.valid('query'), c.req.header('last-event-id'))
        return streamEvents(c, closing, following)
      },
    )
    .get(
      '/events/:id',
      describeRoute({
        tags: ['events'],
        security,
        summary: 'One event',
        responses: { 200: jsonResponse(ShownEvent, 'It.'), ...problemResponses('invalid-token', 'not-found') },
      }),
      signedIn,
      noStore,
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
      describeRoute({
        tags: ['events'],
        security,
        summary: 'What happened to an operation, in causal order',
        responses: { 200: jsonResponse(Timeline, 'Its steps.'), ...problemResponses('invalid-token', 'not-found') },
      }),
      signedIn,
      noStore,
      async (c) => {
        const found = await timeline(c.req.param('id'), ownOf(c.var.caller))
        if (!found) throw new Problem('not-found', 'There is no such operation.')
        return c.json(found)
      },
    )
    .get(
      '/stats',
      describeRoute({
        tags: ['operating'],
        security,
        summary: 'What happened in the last hour',
        responses: { 200: jsonResponse(Stats, 'Counts.'), ...problemResponses('invalid-token', 'forbidden') },
      }),
      signedIn,
      operatorsOnly,
      noStore,
      async (c) => c.json(await stats()),
    )
    .get(
      '/audit/verify',
      describeRoute({
        tags: ['operating'],
        security,
        summary: 'Whether the stored events are as they came',
        description:
          'Goes through every chain: each link, each hash, and each field against the text that it follows from. What takes longer than 20 seconds is cut: go on with `cursor`.',
        responses: {
          200: jsonResponse(Audit, 'What was found.'),
          ...problemResponses('malformed-request', 'invalid-token', 'forbidden', 'overloaded'),
        },
      }),
      signedIn,
      operatorsOnly,
      noStore,
      validate('query', AuditQuery),
      async (c) => c.json(await audit(c.req.valid('query').cursor, c.req.raw.signal)),
    )
}

/** The user whose events a caller may see; undefined: everyone's. */
function ownOf({ user, role }: Caller): string | undefined {
  return role === 'operator' ? undefined : user
}
