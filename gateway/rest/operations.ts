import { type Authenticated, bearer, type TokenVerifier } from '@posta/common/service/auth.ts'
import { jsonResponse, noStore, problemResponses, validate } from '@posta/common/service/http.ts'
import { pageOf, pageQuery } from '@posta/common/service/pages.ts'
import { streamEvents } from '@posta/common/service/stream.ts'
import { Hono } from 'hono'
import { describeRoute } from 'hono-openapi'
import * as v from 'valibot'
import type { Waiting } from '../operations/await-outcome.ts'
import { isTerminal, Operation } from '../operations/operation.ts'
import type { Read } from '../operations/read.ts'
import { Submission, type Submit } from '../operations/submit.ts'

const MAX_WAIT_S = 30
const PageQuery = v.strictObject(pageQuery)
const security = [{ bearer: [] }]
const tags = ['operations']

/** @param parts.closing ends streams and waits when the service closes. */
export function operationRoutes(parts: {
  submit: Submit
  read: Read
  waiting: Waiting
  verify: TokenVerifier
  closing: AbortSignal
}): Hono<Authenticated> {
  const { submit, read, waiting, verify, closing } = parts

  return new Hono<Authenticated>()
    .use(bearer(verify), noStore)
    .post(
      '/',
      describeRoute({
        tags,
        security,
        summary: 'Submit an operation',
        description:
          'Accepted once it is stored: it will end in exactly one outcome. `Prefer: wait=N` (at most 30 seconds) answers with that outcome if it comes in time. With an `Idempotency-Key`, sending the same again answers with the same operation, as it is by then.',
        parameters: [
          { in: 'header', name: 'Idempotency-Key', schema: { type: 'string', minLength: 1, maxLength: 255 } },
          { in: 'header', name: 'Prefer', schema: { type: 'string' }, example: 'wait=10' },
        ],
        responses: {
          200: jsonResponse(Operation, 'The operation, terminal within the time of `Prefer: wait=N`.'),
          202: jsonResponse(Operation, 'The operation, accepted. `Location` tells where it is.'),
          ...problemResponses(
            'malformed-request',
            'invalid-token',
            'payload-too-large',
            'unsupported-media-type',
            'invalid-input',
            'unknown-currency',
            'idempotency-key-reused',
            'too-many-pending',
            'rates-unavailable',
            'overloaded',
          ),
        },
      }),
      validate('json', Submission),
      async (c) => {
        const { user } = c.var.caller
        const waitS = preferredWaitS(c.req.header('prefer'))
        let operation = await submit({
          user,
          submission: c.req.valid('json'),
          idempotencyKey: c.req.header('idempotency-key'),
        })
        if (waitS !== undefined) {
          const signal = AbortSignal.any([closing, c.req.raw.signal, AbortSignal.timeout(waitS * 1000)])
          if (!isTerminal(operation)) operation = await waiting.until(user, operation.id, signal)
          c.header('Preference-Applied', `wait=${waitS}`)
          if (isTerminal(operation)) return c.json(operation, 200)
        }
        c.header('Location', `/operations/${operation.id}`)
        return c.json(operation, 202)
      },
    )
    .get(
      '/',
      describeRoute({
        tags,
        security,
        summary: 'Your operations, newest first',
        responses: {
          200: jsonResponse(pageOf(Operation), 'A page of them.'),
          ...problemResponses('malformed-request', 'invalid-token', 'invalid-input'),
        },
      }),
      validate('query', PageQuery),
      async (c) => c.json(await read.page(c.var.caller.user, c.req.valid('query'))),
    )
    .get(
      '/:id',
      describeRoute({
        tags,
        security,
        summary: 'One of your operations',
        description:
          'One that is terminal stays as it is, with one exception: what failed as `dead-lettered` may succeed later, once, after an operator has its message sent again.',
        responses: { 200: jsonResponse(Operation, 'It.'), ...problemResponses('invalid-token', 'not-found') },
      }),
      async (c) => c.json(await read.one(c.var.caller.user, c.req.param('id'))),
    )
    .get(
      '/:id/stream',
      describeRoute({
        tags,
        security,
        summary: 'Watch an operation until it is terminal',
        description:
          'Server-sent events `operation`: the operation as it is, and again when it is terminal. Then the stream ends, also where it failed as `dead-lettered`: if an operator has that put right, every new stream shows it, as does `GET /operations/{id}`.',
        responses: {
          200: { description: 'Events.', content: { 'text/event-stream': { schema: { type: 'string' } } } },
          ...problemResponses('invalid-token', 'not-found'),
        },
      }),
      async (c) => {
        const { user } = c.var.caller
        const id = c.req.param('id')
        // A problem must be answered before the stream begins.
        await read.one(user, id)
        return streamEvents(c, closing, async function* (signal) {
          for await (const operation of waiting.changes(user, id, signal)) yield { event: 'operation', data: operation }
        })
      },
    )
}

/** Seconds that `Prefer: wait=N` asks for (RFC 7240, section 4.3), at most 30. Anything else there is not for us. */
function preferredWaitS(prefer: string | undefined): number | undefined {
  const seconds = /(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])/i.exec(prefer ?? '')?.[1]
  return seconds === undefined ? undefined : Math.min(Number(seconds), MAX_WAIT_S)
}
