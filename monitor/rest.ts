import { messages } from '@posta/common/messages/events.ts'
import { groups, type Topic, topics } from '@posta/common/messages/topics.ts'
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
import { streamEvents } from '@posta/common/service/stream.ts'
import { Hono } from 'hono'
import { describeRoute } from 'hono-openapi'
import * as v from 'valibot'
import { Audit, type createAudit } from './audit.ts'
import type { Redrive } from './dead-letters.ts'
import { type DeadLetterSummary, deadLetterStatuses, type Store } from './events/events.ts'
import { ShownEvent, show } from './events/record.ts'
import { type createStats, Stats } from './stats.ts'
import type { EventStream } from './stream.ts'
import { type createTimeline, Timeline } from './timeline.ts'

const Id = v.pipe(v.string(), v.minLength(1), v.maxLength(256))
const Time = v.pipe(
  v.string(),
  v.isoTimestamp('must be a time such as 2026-11-23T12:00:00Z'),
  v.transform((text) => Date.parse(text)),
  v.check((ms) => !Number.isNaN(ms), 'must be a time that exists'),
)
const described = <Schema extends v.GenericSchema>(schema: Schema, description: string) =>
  v.pipe(schema, v.metadata({ description }))

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

const DeadLettersQuery = v.strictObject({
  ...pageQuery,
  topic: v.optional(v.picklist(Object.values<Topic>(topics))),
  group: v.optional(v.picklist(Object.values<string>(groups))),
  status: v.optional(v.picklist(deadLetterStatuses)),
})
const DeadLetterPosition = v.object({ receivedAtMs: v.number(), id: v.string() })

const DeadLetter = v.object({
  id: v.string(),
  status: described(v.picklist(deadLetterStatuses), '`redriven` once the broker holds its message again.'),
  reason: v.string(),
  group: v.optional(described(v.string(), 'Who set it aside. Absent: it cannot be read as a dead letter.')),
  topic: v.string(),
  partition: v.number(),
  offset: v.number(),
  time: described(v.string(), 'When the message was written.'),
  receivedAt: v.string(),
  redrivable: v.boolean(),
  type: v.optional(v.string()),
  user: v.optional(v.string()),
  operation: v.optional(v.string()),
  preview: described(v.string(), "The beginning of the message's value."),
  redrive: v.optional(v.object({ event: v.string(), by: v.string(), at: v.string() })),
})

const security = [{ bearer: [] }]
const eventStream = {
  description: 'Events.',
  content: { 'text/event-stream': { schema: { type: 'string' as const } } },
}

/** @param parts.closing ends the streams when the service closes. */
export function routes(parts: {
  store: Pick<Store, 'events' | 'deadLetters'>
  timeline: ReturnType<typeof createTimeline>
  stats: ReturnType<typeof createStats>
  audit: ReturnType<typeof createAudit>
  stream: EventStream
  redrive: Redrive
  verify: TokenVerifier
  closing: AbortSignal
}): Hono<Authenticated> {
  const { store, timeline, stats, audit, stream, redrive, verify, closing } = parts
  const { events, deadLetters } = store
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
    .get(
      '/dead-letters',
      describeRoute({
        tags: ['operating'],
        security,
        summary: 'Messages that were set aside, newest first',
        responses: {
          200: jsonResponse(pageOf(DeadLetter), 'A page of them.'),
          ...problemResponses('malformed-request', 'invalid-token', 'forbidden', 'invalid-input'),
        },
      }),
      signedIn,
      operatorsOnly,
      noStore,
      validate('query', DeadLettersQuery),
      async (c) => {
        const { limit, cursor, ...filter } = c.req.valid('query')
        const before = decodeCursor(DeadLetterPosition, cursor)
        const found = await deadLetters.list(filter, { limit: limit + 1, ...(before && { before }) })
        return c.json(toPage(found, limit, showDeadLetter, ({ receivedAtMs, id }) => ({ receivedAtMs, id })))
      },
    )
    .post(
      '/dead-letters/:id/redrive',
      describeRoute({
        tags: ['operating'],
        security,
        summary: "Send a dead letter's message again",
        description: 'Has its effect once, however often it is asked for. It is an event, with who asked.',
        responses: {
          200: jsonResponse(DeadLetter, 'The dead letter as it is now.'),
          ...problemResponses('invalid-token', 'forbidden', 'not-found', 'conflict', 'overloaded'),
        },
      }),
      signedIn,
      operatorsOnly,
      noStore,
      async (c) => c.json(showDeadLetter(await redrive({ id: c.req.param('id'), by: c.var.caller.user }))),
    )
}

/** The user whose events a caller may see; undefined: everyone's. */
function ownOf({ user, role }: Caller): string | undefined {
  return role === 'operator' ? undefined : user
}

function showDeadLetter(deadLetter: DeadLetterSummary): v.InferOutput<typeof DeadLetter> {
  const { id, status, reason, topic, partition, offset, timestampMs, receivedAtMs, redrivable, preview } = deadLetter
  const { group, type, user, operation, redrive } = deadLetter
  return {
    id,
    status,
    reason,
    ...(group !== undefined && { group }),
    topic,
    partition,
    offset,
    time: new Date(timestampMs).toISOString(),
    receivedAt: new Date(receivedAtMs).toISOString(),
    redrivable,
    ...(type !== undefined && { type }),
    ...(user !== undefined && { user }),
    ...(operation !== undefined && { operation }),
    preview,
    ...(redrive && { redrive }),
  }
}
