import { MAX_CHECKPOINT_CHARACTERS, Place } from '@posta/common/messages/checkpoint.ts'
import { type Authenticated, bearer, operatorsOnly, type TokenVerifier } from '@posta/common/service/auth.ts'
import { jsonResponse, noStore, problemResponses, validate } from '@posta/common/service/http.ts'
import { decodeCursor, pageOf, pageQuery, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { Hono } from 'hono'
import { describeRoute } from 'hono-openapi'
import * as v from 'valibot'
import type { Checkpoints, KeptCheckpoint } from './checkpoints.ts'
import type { Witnesses } from './trusted-heads.ts'

const Shown = v.object({
  time: v.string(),
  checkpoint: v.pipe(
    v.string(),
    v.metadata({
      description:
        'A JWT that gateway has signed: `heads`, the number and hash of the last event of each chain, and `keys`, with which gateway has signed checkpoints.',
    }),
  ),
})
const Position = v.object({ atMs: v.number() })
const Kept = v.strictObject({ checkpoint: v.pipe(v.string(), v.maxLength(MAX_CHECKPOINT_CHARACTERS)) })

const security = [{ bearer: [] }]
const tags = ['operating']

/** To be mounted at `/audit`. */
export function checkpointRoutes(parts: {
  checkpoints: Pick<Checkpoints, 'list'>
  witnesses: Witnesses
  verify: TokenVerifier
}): Hono<Authenticated> {
  const { checkpoints, witnesses, verify } = parts
  return new Hono<Authenticated>()
    .use(bearer(verify), operatorsOnly, noStore)
    .get(
      '/heads',
      describeRoute({
        tags,
        security,
        summary: 'Where the chains are',
        description: 'Gateway asks for this, and signs it.',
        responses: {
          200: jsonResponse(v.object({ heads: v.array(Place) }), 'The last event of each chain.'),
          ...problemResponses('invalid-token', 'forbidden'),
        },
      }),
      async (c) => c.json({ heads: await witnesses.heads() }),
    )
    .get(
      '/checkpoints',
      describeRoute({
        tags,
        security,
        summary: 'What gateway has signed of the chains, newest first',
        description: 'The last checkpoint of each day.',
        responses: {
          200: jsonResponse(pageOf(Shown), 'A page of them.'),
          ...problemResponses('malformed-request', 'invalid-token', 'forbidden', 'invalid-input'),
        },
      }),
      validate('query', v.strictObject(pageQuery)),
      async (c) => {
        const { limit, cursor } = c.req.valid('query')
        const found = await checkpoints.list({ limit: limit + 1, beforeMs: decodeCursor(Position, cursor)?.atMs })
        return c.json(toPage(found, limit, show, ({ atMs }) => ({ atMs })))
      },
    )
    .get(
      '/checkpoints/latest',
      describeRoute({
        tags,
        security,
        summary: 'The newest checkpoint',
        description:
          'Keep it out of reach of whoever can write to this store: `bun run audit verify EXPORT --checkpoint FILE` then tells if events that it names were cut off, replaced or brought back from an old copy.',
        responses: {
          200: jsonResponse(Shown, 'It.'),
          ...problemResponses('invalid-token', 'forbidden', 'not-found'),
        },
      }),
      async (c) => {
        const [newest] = await checkpoints.list({ limit: 1 })
        if (!newest) throw new Problem('not-found', 'Nothing has been signed yet.')
        return c.json(show(newest))
      },
    )
    .post(
      '/checkpoints',
      describeRoute({
        tags,
        security,
        summary: 'Keep a checkpoint',
        description: 'From gateway, as it signs them; or one that was kept elsewhere, to put it back.',
        responses: {
          200: jsonResponse(
            v.object({ missing: v.array(Place) }),
            'It is kept. `missing`: what it names and the chains do not hold, though they should.',
          ),
          ...problemResponses('malformed-request', 'invalid-token', 'forbidden', 'invalid-input'),
        },
      }),
      validate('json', Kept),
      async (c) => c.json({ missing: await witnesses.keep(c.req.valid('json').checkpoint) }),
    )
}

function show({ atMs, jwt }: KeptCheckpoint): v.InferOutput<typeof Shown> {
  return { time: new Date(atMs).toISOString(), checkpoint: jwt }
}
