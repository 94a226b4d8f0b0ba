import { groups, type Topic, topics } from '@posta/common/messages/topics.ts'
import type { Authenticated, TokenVerifier } from '@posta/common/service/auth.ts'
import { decodeCursor, pageOf, pageQuery, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { described, Id, Time } from '@posta/common/service/query.ts'
import { json, routesOf } from '@posta/common/service/route.ts'
import { Hono } from 'hono'
import * as v from 'valibot'
import {
  type Choice,
  type DeadLetterFilter,
  type DeadLetterSummary,
  type DeadLetters,
  deadLetterStatuses,
  type StoredDeadLetter,
} from './dead-letters.ts'
import type { createDecideMany } from './decide-many.ts'
import type { Decisions } from './decisions.ts'

const filters = {
  topic: v.optional(described(v.picklist(Object.values<Topic>(topics)), 'The topic of the message.')),
  group: v.optional(described(v.picklist(Object.values<string>(groups)), 'The group that set it aside.')),
  type: v.optional(described(Id, "The message's `ce_type`, whatever it says.")),
  user: v.optional(Id),
  operation: v.optional(Id),
  from: v.optional(described(Time, 'Received by monitor at this time or later.')),
  to: v.optional(described(Time, 'Received by monitor before this time.')),
}
const Query = v.strictObject({ ...pageQuery, ...filters, status: v.optional(v.picklist(deadLetterStatuses)) })
const Position = v.object({ receivedAtMs: v.number(), id: v.string() })

const Reason = described(
  v.pipe(v.string(), v.trim(), v.minLength(1, 'must say why'), v.maxLength(1000)),
  'Why. The audit keeps it.',
)
const Discard = v.strictObject({ reason: Reason })
const many = {
  filter: described(
    v.strictObject({ ...filters, status: v.optional(v.literal('open')) }),
    'As in `GET /dead-letters`; `{}` selects all. Only open dead letters are selected.',
  ),
  dryRun: v.optional(described(v.boolean(), 'True: nothing changes, and the answer says what would be done.'), true),
  cursor: v.optional(described(v.string(), '`next` of the answer before.')),
}
const RedriveMany = v.strictObject(many)
const DiscardMany = v.strictObject({ ...many, reason: Reason })
type Many = v.InferOutput<typeof RedriveMany> & Partial<v.InferOutput<typeof Discard>>

const decided = { event: v.string(), by: v.string(), at: v.string() }
const DeadLetter = v.object({
  id: v.string(),
  status: described(
    v.picklist(deadLetterStatuses),
    '`redriven` or `discarded` once the broker has the messages of the decision. `open` together with `redrive` or `discard`: decided, and still to be published.',
  ),
  reason: v.string(),
  group: v.optional(described(v.string(), 'The group that set it aside. Absent: it cannot be read as a dead letter.')),
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
  redrive: v.optional(v.object(decided)),
  discard: v.optional(v.object({ ...decided, reason: v.string() })),
})
const Bytes = v.object({
  base64: v.string(),
  text: v.optional(described(v.string(), 'The beginning, where the bytes are text in UTF-8.')),
})
const WholeDeadLetter = v.object({
  ...DeadLetter.entries,
  original: described(
    v.object({
      key: v.nullable(Bytes),
      headers: v.array(v.object({ name: v.string(), ...Bytes.entries })),
      value: v.nullable(Bytes),
    }),
    'The message as it was. If it could not be read, or cannot be read as a dead letter, its first 64 KiB.',
  ),
})
type WholeDeadLetter = v.InferOutput<typeof WholeDeadLetter>

const Preview = v.object({
  dryRun: v.literal(true),
  count: described(v.number(), 'How many there are, at most 10,000.'),
  orMore: described(v.boolean(), 'There are more than `count`.'),
  ids: described(v.array(v.string()), 'The first 100, oldest first.'),
})
const done = {
  dryRun: v.literal(false),
  already: described(v.number(), 'Decided the same before, by someone else or by an earlier request.'),
  refused: described(v.number(), 'Left as they are.'),
  refusals: described(v.array(v.object({ id: v.string(), detail: v.string() })), 'Which are left, and why.'),
  next: v.optional(
    described(
      v.string(),
      'There are more: send this as `cursor`. What is set aside in the meantime is not selected then.',
    ),
  ),
}

/** All for operators. Mounted at `/dead-letters`. */
export function deadLetterRoutes(options: {
  deadLetters: Pick<DeadLetters, 'get' | 'list'>
  decisions: Pick<Decisions, 'decide'>
  decideMany: ReturnType<typeof createDecideMany>
  verify: TokenVerifier
}): Hono<Authenticated> {
  const { deadLetters, decisions, decideMany, verify } = options
  const route = routesOf('dead letters', verify)
  const app = new Hono<Authenticated>()

  app.get(
    '/',
    ...route({
      summary: 'Dead letters, newest first',
      caller: 'operator',
      query: Query,
      answers: { 200: json(pageOf(DeadLetter), 'A page of dead letters.') },
    }),
    async (c) => {
      const { limit, cursor, ...asked } = c.req.valid('query')
      const before = decodeCursor(Position, cursor)
      const found = await deadLetters.list(toFilter(asked), { limit: limit + 1, before })
      return c.json(toPage(found, limit, show, ({ receivedAtMs, id }) => ({ receivedAtMs, id })))
    },
  )

  /** Decides about all that a filter selects. A body with a reason is a discard, one without a redrive. */
  function addManyRoute(options: {
    path: '/redrive' | '/discard'
    to: Choice['to']
    summary: string
    more?: string
    body: v.GenericSchema<unknown, Many>
  }): void {
    const { path, to, summary, more = '', body } = options
    const description = `Without \`dryRun: false\` it only says how many there are, and which. With it, up to 100 are ${to}, the oldest first; \`next\` says that there are more.${more}`
    const answers = {
      200: json(v.union([Preview, v.object({ ...done, [to]: v.number() })]), 'What would be done, or was done.'),
    }
    const handlers = route({ summary, description, caller: 'operator', body, answers, problems: ['overloaded'] })
    app.post(path, ...handlers, async (c) => {
      const { filter, reason, ...asked } = c.req.valid('json')
      const choice: Choice = reason === undefined ? { to: 'redriven' } : { to: 'discarded', reason }
      const answer = await decideMany({ ...asked, filter: toFilter(filter), by: c.var.caller.user, choice })
      if (answer.dryRun) return c.json(answer)
      const { dryRun, done, refusals, ...rest } = answer
      return c.json({ dryRun, [to]: done, refused: refusals.length, refusals, ...rest })
    })
  }
  addManyRoute({
    path: '/redrive',
    to: 'redriven',
    summary: 'Send the messages of many dead letters again',
    more: ' Dead letters that cannot be redriven (`redrivable: false`) are not selected. Sending the request again is safe: each redrive has its effect once.',
    body: RedriveMany,
  })
  addManyRoute({ path: '/discard', to: 'discarded', summary: 'Discard many dead letters', body: DiscardMany })

  return app
    .get(
      '/:id',
      ...route({
        summary: 'One dead letter, with the message as it was',
        caller: 'operator',
        answers: { 200: json(WholeDeadLetter, 'The dead letter.') },
        problems: ['not-found'],
      }),
      async (c) => {
        const found = await deadLetters.get(c.req.param('id'))
        if (!found) throw new Problem('not-found', 'There is no such dead letter.')
        return c.json(showWhole(found))
      },
    )
    .post(
      '/:id/redrive',
      ...route({
        summary: "Send a dead letter's message again",
        description:
          'Has its effect once, however often it is asked for; asking again sends the same message again. An event says who asked first. An operation that failed as `dead-lettered` may succeed by it, once. `overloaded`: the decision is recorded, and is carried out when the broker takes messages again.',
        caller: 'operator',
        answers: { 200: json(DeadLetter, 'The dead letter as it is now.') },
        problems: ['not-found', 'conflict', 'overloaded'],
      }),
      async (c) => {
        const asked = { id: c.req.param('id'), by: c.var.caller.user, choice: { to: 'redriven' } } as const
        return c.json(show(await decisions.decide(asked)))
      },
    )
    .post(
      '/:id/discard',
      ...route({
        summary: 'Discard a dead letter',
        description:
          'It is kept, and cannot be redriven any more. If it is that of an operation whose run is stuck, the operation fails with `dead-lettered`. An event says who asked first, and why; the reason of a later request is ignored. `overloaded`: the decision is recorded, and its event is sent when the broker takes messages again.',
        caller: 'operator',
        body: Discard,
        answers: { 200: json(DeadLetter, 'The dead letter as it is now.') },
        problems: ['not-found', 'conflict', 'overloaded'],
      }),
      async (c) => {
        const choice: Choice = { to: 'discarded', reason: c.req.valid('json').reason }
        return c.json(show(await decisions.decide({ id: c.req.param('id'), by: c.var.caller.user, choice })))
      },
    )
}

function toFilter({
  from,
  to,
  ...equal
}: Omit<DeadLetterFilter, 'fromMs' | 'untilMs'> & { from?: number | undefined; to?: number | undefined }) {
  return { ...equal, fromMs: from, untilMs: to }
}

/** The schema leaves out what it does not name, such as the bytes. */
function show(deadLetter: DeadLetterSummary): v.InferOutput<typeof DeadLetter> {
  const { timestampMs, receivedAtMs, decision } = deadLetter
  return v.parse(DeadLetter, {
    ...deadLetter,
    time: new Date(timestampMs).toISOString(),
    receivedAt: new Date(receivedAtMs).toISOString(),
    redrive: decision?.to === 'redriven' ? decision : undefined,
    discard: decision?.to === 'discarded' ? decision : undefined,
  })
}

const MAX_TEXT_CHARACTERS = 10_000
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function showWhole(deadLetter: StoredDeadLetter): WholeDeadLetter {
  const { key, headers, value } = deadLetter.original
  return {
    ...show(deadLetter),
    original: {
      key: key === null ? null : showBytes(key),
      headers: headers.map((header) => ({ name: header.name, ...showBytes(header.value) })),
      value: value === null ? null : showBytes(value),
    },
  }
}

function showBytes(base64: string): v.InferOutput<typeof Bytes> {
  try {
    const text = utf8.decode(Buffer.from(base64, 'base64'))
    return { base64, text: text.slice(0, MAX_TEXT_CHARACTERS).toWellFormed() }
  } catch {
    return { base64 }
  }
}
