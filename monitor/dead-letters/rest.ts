import { groups, type Topic, topics } from '@posta/common/messages/topics.ts'
import type { Authenticated, TokenVerifier } from '@posta/common/service/auth.ts'
import { decodeCursor, pageOf, pageQuery, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { json, routesOf } from '@posta/common/service/route.ts'
import { Hono } from 'hono'
import * as v from 'valibot'
import { described, Id, Time } from '../query.ts'
import {
  type DeadLetterFilter,
  type DeadLetterSummary,
  type DeadLetters,
  deadLetterStatuses,
  type StoredDeadLetter,
} from './dead-letters.ts'
import type { createDecideMany } from './decide-many.ts'
import type { Choice, Decisions } from './decisions.ts'

const filters = {
  topic: v.optional(described(v.picklist(Object.values<Topic>(topics)), 'Where the message was.')),
  group: v.optional(described(v.picklist(Object.values<string>(groups)), 'Who set it aside.')),
  type: v.optional(described(Id, "The message's `ce_type`, whatever it says.")),
  user: v.optional(Id),
  operation: v.optional(Id),
  from: v.optional(described(Time, 'When monitor received it: the first time that counts.')),
  to: v.optional(described(Time, 'The first time that no longer counts.')),
}
const Query = v.strictObject({ ...pageQuery, ...filters, status: v.optional(v.picklist(deadLetterStatuses)) })
const Position = v.object({ receivedAtMs: v.number(), id: v.string() })

const Reason = described(
  v.pipe(v.string(), v.trim(), v.minLength(1, 'must say why'), v.maxLength(1000)),
  'Why; it stays in the audit.',
)
const Discard = v.strictObject({ reason: Reason })
const many = {
  filter: described(
    v.strictObject({ ...filters, status: v.optional(v.literal('open')) }),
    'As in `GET /dead-letters`. `{}`: all. Only open ones are meant.',
  ),
  dryRun: v.optional(described(v.boolean(), 'True: nothing is changed, and the answer says what would be.'), true),
  cursor: v.optional(described(v.string(), '`next` of the answer before.')),
}
const RedriveMany = v.strictObject(many)
const DiscardMany = v.strictObject({ ...many, reason: Reason })

const decided = { event: v.string(), by: v.string(), at: v.string() }
const DeadLetter = v.object({
  id: v.string(),
  status: described(
    v.picklist(deadLetterStatuses),
    '`redriven` or `discarded` once the broker holds what that means; with `redrive` or `discard` and still `open`, it is on its way.',
  ),
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
  redrive: v.optional(v.object(decided)),
  discard: v.optional(v.object({ ...decided, reason: v.string() })),
})
const Bytes = v.object({
  base64: v.string(),
  text: v.optional(described(v.string(), 'The beginning of it, where it is text in UTF-8.')),
})
const WholeDeadLetter = v.object({
  ...DeadLetter.entries,
  original: described(
    v.object({
      key: v.nullable(Bytes),
      headers: v.array(v.object({ name: v.string(), ...Bytes.entries })),
      value: v.nullable(Bytes),
    }),
    'The message as it was. Of what cannot be read as a dead letter, the first 64 KiB.',
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
  already: described(v.number(), 'Decided so before, by someone else or an earlier request.'),
  refused: described(v.number(), 'Left as they are.'),
  refusals: described(v.array(v.object({ id: v.string(), detail: v.string() })), 'Which these are, and why.'),
  next: v.optional(
    described(v.string(), 'There are more: send it as `cursor`. What is set aside meanwhile is not met.'),
  ),
}
const RedrivenMany = v.object({ ...done, redriven: v.number() })
const DiscardedMany = v.object({ ...done, discarded: v.number() })

/** All for operators. Mounted at `/dead-letters`. */
export function deadLetterRoutes(parts: {
  deadLetters: Pick<DeadLetters, 'get' | 'list'>
  decisions: Pick<Decisions, 'decide'>
  decideMany: ReturnType<typeof createDecideMany>
  verify: TokenVerifier
}): Hono<Authenticated> {
  const { deadLetters, decisions, decideMany, verify } = parts
  const route = routesOf('dead letters', verify)

  return new Hono<Authenticated>()
    .get(
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
    .post(
      '/redrive',
      ...route({
        summary: 'Send the messages of many dead letters again',
        description:
          'Without `dryRun: false` it only says how many there are, and which. Then it redrives up to 100 a request, the oldest first; `next` says that there are more. A dead letter that cannot be redriven (`redrivable: false`) is left out. Each has its effect once, also if the request is sent again.',
        caller: 'operator',
        body: RedriveMany,
        answers: { 200: json(v.union([Preview, RedrivenMany]), 'What would be done, or was done.') },
        problems: ['overloaded'],
      }),
      async (c) => {
        const { filter, dryRun, cursor } = c.req.valid('json')
        const asked = { filter: toFilter(filter), by: c.var.caller.user, choice: { to: 'redriven' }, cursor } as const
        if (dryRun) return c.json({ dryRun, ...(await decideMany.preview(asked)) })
        const { done: redriven, refused: refusals, ...rest } = await decideMany.decide(asked)
        return c.json({ dryRun, redriven, refused: refusals.length, refusals, ...rest })
      },
    )
    .post(
      '/discard',
      ...route({
        summary: 'Discard many dead letters',
        description:
          'Without `dryRun: false` it only says how many there are, and which. Then it discards up to 100 a request, the oldest first; `next` says that there are more.',
        caller: 'operator',
        body: DiscardMany,
        answers: { 200: json(v.union([Preview, DiscardedMany]), 'What would be done, or was done.') },
        problems: ['overloaded'],
      }),
      async (c) => {
        const { filter, dryRun, cursor, reason } = c.req.valid('json')
        const choice: Choice = { to: 'discarded', reason }
        const asked = { filter: toFilter(filter), by: c.var.caller.user, choice, cursor }
        if (dryRun) return c.json({ dryRun, ...(await decideMany.preview(asked)) })
        const { done: discarded, refused: refusals, ...rest } = await decideMany.decide(asked)
        return c.json({ dryRun, discarded, refused: refusals.length, refusals, ...rest })
      },
    )
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
          'Has its effect once, however often it is asked for; asking again sends the same message again. It is an event, with who asked. An operation that failed as `dead-lettered` may succeed by it, once. `overloaded`: the decision is recorded, and is carried out when the broker takes messages again.',
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
          'It is kept, and cannot be redriven any more. It is an event, with who asked and why. If it is asked for again, the first reason stays. `overloaded`: the decision is recorded, and its event is sent when the broker takes messages again.',
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

function show(deadLetter: DeadLetterSummary): v.InferOutput<typeof DeadLetter> {
  const { id, status, reason, topic, partition, offset, timestampMs, receivedAtMs, redrivable, preview } = deadLetter
  const { group, type, user, operation, decision } = deadLetter
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
    ...(decision && showDecision(decision)),
  }
}

function showDecision(decision: NonNullable<DeadLetterSummary['decision']>) {
  const { event, by, at } = decision
  if (decision.to === 'redriven') return { redrive: { event, by, at } }
  return { discard: { event, by, at, reason: decision.reason } }
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
