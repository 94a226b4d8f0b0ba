import { contracts } from '@posta/common/operations/catalog.ts'
import type { Authenticated, TokenVerifier } from '@posta/common/service/auth.ts'
import { pageOf, pageQuery } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { eventStream, json, routesOf } from '@posta/common/service/route.ts'
import { streamEvents } from '@posta/common/service/stream.ts'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Waiters } from '../operations/await-outcome.ts'
import { isTerminal, Operation } from '../operations/operation.ts'
import type { Read } from '../operations/read.ts'
import { Submission, type Submit } from '../operations/submit.ts'
import type { Tell } from '../operations/tell.ts'

const MAX_WAIT_S = 30

const signals = contracts.flatMap(({ type, signals = {} }) =>
  Object.entries(signals).map(([name, signal]) => ({ type, name, ...signal })),
)
/** Which of the payloads it must be depends on the operation. */
const AnyPayload = v.pipe(
  v.record(v.string(), v.unknown()),
  v.description(`As the contract of the operation's type has it for this signal.`),
)

/** @param options.closing aborts when the service closes: streams and waits end */
export function operationRoutes(options: {
  submit: Submit
  tell: Tell
  read: Read
  waiters: Waiters
  verify: TokenVerifier
  closing: AbortSignal
}): Hono<Authenticated> {
  const { submit, tell, read, waiters, verify, closing } = options
  const route = routesOf('operations', verify)

  /** The operation is stored by now, so too many who wait are no reason to refuse it. Undefined: nobody waited. */
  async function awaitIfRoom(user: string, id: string, signal: AbortSignal): Promise<Operation | undefined> {
    try {
      return await waiters.awaitOutcome(user, id, signal)
    } catch (error) {
      if (error instanceof Problem && (error.code === 'too-many-requests' || error.code === 'overloaded'))
        return undefined
      throw error
    }
  }

  return new Hono<Authenticated>()
    .post(
      '/',
      ...route({
        summary: 'Submit an operation',
        description:
          'Accepted once it is stored: it will end in exactly one outcome. `Prefer: wait=N` (at most 30 seconds) answers with that outcome if it comes in time. Sending the same again with the same `Idempotency-Key` answers with the same operation, as it is by then.',
        caller: 'user',
        body: Submission,
        parameters: [
          { in: 'header', name: 'Idempotency-Key', schema: { type: 'string', minLength: 1, maxLength: 255 } },
          { in: 'header', name: 'Prefer', schema: { type: 'string' }, example: 'wait=10' },
        ],
        answers: {
          200: json(Operation, 'The operation, which became terminal within the time of `Prefer: wait=N`.'),
          202: json(Operation, 'The operation, accepted. `Location` is its path.'),
        },
        problems: [
          'idempotency-key-reused',
          'too-many-pending',
          'quota-exceeded',
          'overloaded',
          'unknown-currency', // example
          'rates-unavailable', // example
        ],
      }),
      async (c) => {
        const { user, role } = c.var.caller
        const waitS = preferredWaitS(c.req.header('prefer'))
        let operation = await submit({
          user,
          role,
          submission: c.req.valid('json'),
          idempotencyKey: c.req.header('idempotency-key'),
        })
        if (waitS !== undefined) {
          const signal = AbortSignal.any([closing, c.req.raw.signal, AbortSignal.timeout(waitS * 1000)])
          const waited = isTerminal(operation) ? operation : await awaitIfRoom(user, operation.id, signal)
          if (waited) c.header('Preference-Applied', `wait=${waitS}`)
          operation = waited ?? operation
          if (isTerminal(operation)) return c.json(operation, 200)
        }
        c.header('Location', `/operations/${operation.id}`)
        return c.json(operation, 202)
      },
    )
    .get(
      '/',
      ...route({
        summary: 'Your operations, newest first',
        caller: 'user',
        query: v.strictObject(pageQuery),
        answers: { 200: json(pageOf(Operation), 'A page of operations.') },
      }),
      async (c) => c.json(await read.page(c.var.caller.user, c.req.valid('query'))),
    )
    .get(
      '/:id',
      ...route({
        summary: 'One of your operations',
        description:
          'A terminal operation stays as it is, with one exception: one that failed as `dead-lettered` may succeed later, once, after an operator redrives its message.',
        caller: 'user',
        answers: { 200: json(Operation, 'The operation.') },
        problems: ['not-found'],
      }),
      async (c) => c.json(await read.one(c.var.caller.user, c.req.param('id'))),
    )
    .get(
      '/:id/stream',
      ...route({
        summary: 'Watch an operation until it is terminal',
        description:
          'Server-sent events `operation`: the operation as it is, and again when it has more `progress`, until it is terminal. Changes that come close together may come as one. Then the stream ends, also where the operation failed as `dead-lettered`: if an operator redrives its message, a new stream and `GET /operations/{id}` show the new result.',
        caller: 'user',
        answers: { 200: eventStream('The operation, each time that it changes.') },
        problems: ['not-found', 'too-many-requests', 'overloaded'],
      }),
      async (c) => {
        const { user } = c.var.caller
        const id = c.req.param('id')
        // It has no stream, which would begin with this read.
        if (c.req.method === 'HEAD') await read.one(user, id)
        return streamEvents(c, closing, async function* (signal) {
          for await (const operation of waiters.changes(user, id, signal)) yield { event: 'operation', data: operation }
        })
      },
    )
    .post(
      '/:id/cancel',
      ...route({
        summary: 'Cancel an operation',
        description:
          'Accepted once it is recorded. An operation that has not begun fails with `cancelled`. One in steps that has not passed its point of no return is undone and fails with `cancelled`. Any other goes on. An operation in steps that failed as `dead-lettered` is accepted, too: after a redrive it may go on. Asking again while it may go on changes nothing and answers the same. An operator may cancel the operation of any user.',
        caller: 'user',
        answers: { 202: json(Operation, 'The operation, as it is. `GET /operations/{id}` shows what becomes of it.') },
        problems: ['not-found', 'already-terminal', 'overloaded'],
      }),
      async (c) => c.json(await tell.cancel({ caller: c.var.caller, id: c.req.param('id') }), 202),
    )
    .post(
      '/:id/signals/:name',
      ...route({
        summary: 'Give an operation the answer that it waits for',
        description: `Accepted once it is recorded, also if the operation does not wait for it yet. An operation takes each answer once. ${signalsText()}`,
        caller: 'user',
        body: AnyPayload,
        answers: { 202: json(Operation, 'The operation, as it is. `GET /operations/{id}` shows what becomes of it.') },
        problems: ['not-found', 'unknown-signal', 'forbidden', 'already-terminal', 'already-given', 'overloaded'],
      }),
      async (c) => {
        const { id, name } = c.req.param()
        const payload = c.req.valid('json')
        return c.json(await tell.signal({ caller: c.var.caller, id, name, payload, base: '#' }), 202)
      },
    )
}

function signalsText(): string {
  const givers = { owner: 'its owner', operator: 'an operator who is not its owner' }
  if (signals.length === 0) return 'No operation of this version waits for one.'
  return signals
    .map(({ type, name, from, description }) => `\`${name}\` of \`${type}\`, from ${givers[from]}: ${description}`)
    .join(' ')
}

/** Seconds that `Prefer: wait=N` asks for (RFC 7240, section 4.3), at most 30. Other preferences are ignored. */
function preferredWaitS(prefer: string | undefined): number | undefined {
  const seconds = /(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])/i.exec(prefer ?? '')?.[1]
  return seconds === undefined ? undefined : Math.min(Number(seconds), MAX_WAIT_S)
}
