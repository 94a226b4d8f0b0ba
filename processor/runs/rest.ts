import type { Broker } from '@posta/common/broker/broker.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import { operationTypes } from '@posta/common/operations/catalog.ts'
import type { Authenticated, Caller, TokenVerifier } from '@posta/common/service/auth.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { decodeCursor, pageOf, pageQuery, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { described, Id, Time } from '@posta/common/service/query.ts'
import { json, routesOf } from '@posta/common/service/route.ts'
import { traceparent } from '@posta/common/service/trace.ts'
import { Hono } from 'hono'
import * as v from 'valibot'
import { NEVER_MS, type Run, type RunRecord, type Runs, runStates } from './runs.ts'

const Type = v.picklist(operationTypes)
const Query = v.strictObject({
  ...pageQuery,
  state: v.optional(described(v.picklist(runStates), '`stuck` needs an operator; `waiting` may wait for an answer.')),
  type: v.optional(Type),
  user: v.optional(Id),
  acceptedBefore: v.optional(described(Time, 'Only runs whose operation was accepted before this time.')),
})
const Cursor = v.pipe(v.string(), v.maxLength(256))

const members = {
  id: described(v.string(), "The operation's id."),
  user: v.string(),
  type: Type,
  version: described(v.number(), "Of the performer's code that it goes on with."),
  state: v.picklist(runStates),
  step: v.optional(described(v.string(), 'The step, or the wait, that it is at.')),
  waitsFor: v.optional(v.picklist(['answer', 'time'])),
  dueAt: v.optional(described(v.string(), 'When it goes on by itself.')),
  attempts: described(v.number(), 'How often the step was attempted.'),
  failures: described(v.number(), 'How many of the last attempts failed, one after the other.'),
  reason: v.optional(described(v.string(), 'Of the last failed attempt, or why it is stuck.')),
  createdAt: v.string(),
  decidedAt: v.string(),
}
const ShownRun = v.object(members)
const ShownRecord = v.object({
  n: v.number(),
  kind: v.string(),
  at: v.string(),
  step: v.optional(v.string()),
  reason: v.optional(v.string()),
})
const ShownRunWithHistory = v.object({ ...members, history: v.array(ShownRecord) })
const PausedTypes = v.object({ items: v.array(v.object({ type: v.string() })) })

/** What runs do, for their users and for operators, who can hold back the new runs of a type. */
export function runRoutes(options: {
  readonly runs: Runs
  readonly broker: Pick<Broker, 'publish'>
  readonly verify: TokenVerifier
  readonly deps: Pick<Deps, 'now' | 'newId'>
}): Hono<Authenticated> {
  const { runs, broker, verify, deps } = options
  const route = routesOf('runs', verify)

  /** The event comes first: nothing is done that the audit does not know. */
  async function setPaused(type: string, by: string, paused: boolean): Promise<void> {
    const operationType = v.safeParse(Type, type)
    if (!operationType.success) throw new Problem('not-found', 'There is no operation of this type.')
    if ((await runs.paused()).includes(type) === paused) return
    const event = encode({
      id: deps.newId(),
      type: paused ? 'posta.runs.paused' : 'posta.runs.resumed',
      time: new Date(deps.now()).toISOString(),
      traceparent: traceparent(),
      data: { operationType: operationType.output, by },
    })
    await broker.publish([event]).catch((error: unknown) => {
      throw new Problem('unavailable', 'The broker does not take messages, so nothing was changed.', {
        retryAfterS: 5,
        cause: error,
      })
    })
    await runs.pause(type, paused)
  }

  return new Hono<Authenticated>()
    .get(
      '/',
      ...route({
        summary: "Runs of operations in steps, newest first: your own, or everyone's for an operator",
        description:
          'What waits for an operator is `state=stuck`, or `state=waiting` with `waitsFor: "answer"`. An operator cancels and answers at gateway, and redrives or discards what is stuck at monitor.',
        caller: 'user',
        query: Query,
        answers: { 200: json(pageOf(ShownRun), 'A page of runs.') },
        problems: ['forbidden'],
      }),
      async (c) => {
        const { limit, cursor, user, state, type, acceptedBefore } = c.req.valid('query')
        const before = decodeCursor(Cursor, cursor)
        const filter = {
          user: userOf(c.var.caller, user),
          state,
          type,
          createdBefore: acceptedBefore === undefined ? undefined : new Date(acceptedBefore).toISOString(),
        }
        const found = await runs.page(filter, { limit: limit + 1, before })
        return c.json(toPage(found, limit, shown, ({ id }) => id))
      },
    )
    .get(
      '/paused',
      ...route({
        summary: 'The types whose new runs wait',
        caller: 'operator',
        answers: { 200: json(PausedTypes, 'The paused types.') },
      }),
      async (c) => c.json({ items: (await runs.paused()).map((type) => ({ type })) }),
    )
    .put(
      '/paused/:type',
      ...route({
        summary: 'Let the new runs of a type wait',
        description: 'Runs that have begun go on. Operations of the type are still accepted.',
        caller: 'operator',
        answers: { 204: { description: 'New runs of the type wait, within a second.' } },
        problems: ['not-found'],
      }),
      async (c) => {
        await setPaused(c.req.param('type'), c.var.caller.user, true)
        return c.body(null, 204)
      },
    )
    .delete(
      '/paused/:type',
      ...route({
        summary: 'Let the runs of a type begin again',
        caller: 'operator',
        answers: { 204: { description: 'Runs of the type begin.' } },
        problems: ['not-found'],
      }),
      async (c) => {
        await setPaused(c.req.param('type'), c.var.caller.user, false)
        return c.body(null, 204)
      },
    )
    .get(
      '/:id',
      ...route({
        summary: 'A run, with what is recorded of it',
        caller: 'user',
        answers: { 200: json(ShownRunWithHistory, 'The run.') },
        problems: ['not-found'],
      }),
      async (c) => {
        const { caller } = c.var
        const run = await runs.get(c.req.param('id'))
        if (!run || (caller.role !== 'operator' && run.user !== caller.user))
          throw new Problem('not-found', 'You have no run with this id.')
        return c.json({ ...shown(run), history: (await runs.history(run.id)).map(shownRecord) })
      },
    )
}

/** Operators see the runs of whom they ask for, others their own. */
function userOf({ user, role }: Caller, asked: string | undefined): string | undefined {
  if (role === 'operator') return asked
  if (asked !== undefined && asked !== user) throw new Problem('forbidden', 'Only operators see the runs of others.')
  return user
}

function shown({ head, ...run }: Run): v.InferOutput<typeof ShownRun> {
  const { id, user, type, version, createdAt, decidedAtMs } = run
  const { state, step, forSignal, dueAtMs, attempts, failures, reason } = head
  const goesOnByItself = state === 'waiting' || state === 'ready' || (state === 'stuck' && dueAtMs < NEVER_MS)
  return {
    id,
    user,
    type,
    version,
    state,
    ...(step !== undefined && { step }),
    ...(state === 'waiting' && { waitsFor: forSignal ? ('answer' as const) : ('time' as const) }),
    ...(goesOnByItself && { dueAt: new Date(dueAtMs).toISOString() }),
    attempts,
    failures,
    ...(reason !== undefined && { reason }),
    createdAt,
    decidedAt: new Date(decidedAtMs).toISOString(),
  }
}

function shownRecord(record: RunRecord): v.InferOutput<typeof ShownRecord> {
  const { n, kind, atMs } = record
  return {
    n,
    kind,
    at: new Date(atMs).toISOString(),
    ...('step' in record && { step: record.step }),
    ...(record.kind === 'stuck' && { reason: record.reason }),
    ...(record.kind === 'failing' && { reason: record.failure.message }),
  }
}
