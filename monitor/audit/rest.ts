import { ChainHead, MAX_CHECKPOINT_CHARACTERS } from '@posta/common/messages/checkpoint.ts'
import type { Authenticated, TokenVerifier } from '@posta/common/service/auth.ts'
import { decodeCursor, pageOf, pageQuery, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { json, routesOf } from '@posta/common/service/route.ts'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Checkpoints, KeptCheckpoint } from './checkpoints.ts'
import type { TrustedHeads } from './trusted-heads.ts'

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

/** For operators. Mounted at `/audit`. */
export function checkpointRoutes(parts: {
  checkpoints: Pick<Checkpoints, 'list'>
  trustedHeads: TrustedHeads
  verify: TokenVerifier
}): Hono<Authenticated> {
  const { checkpoints, trustedHeads, verify } = parts
  const route = routesOf('operating', verify)
  return new Hono<Authenticated>()
    .get(
      '/heads',
      ...route({
        summary: 'The last event of each audit chain',
        description: 'Gateway asks for this, and signs it.',
        caller: 'operator',
        answers: { 200: json(v.object({ heads: v.array(ChainHead) }), 'The head of each chain.') },
      }),
      async (c) => c.json({ heads: await trustedHeads.heads() }),
    )
    .get(
      '/checkpoints',
      ...route({
        summary: 'What gateway has signed of the chains, newest first',
        description: 'The last checkpoint of each day.',
        caller: 'operator',
        query: v.strictObject(pageQuery),
        answers: { 200: json(pageOf(Shown), 'A page of checkpoints.') },
      }),
      async (c) => {
        const { limit, cursor } = c.req.valid('query')
        const found = await checkpoints.list({ limit: limit + 1, beforeMs: decodeCursor(Position, cursor)?.atMs })
        return c.json(toPage(found, limit, show, ({ atMs }) => ({ atMs })))
      },
    )
    .get(
      '/checkpoints/latest',
      ...route({
        summary: 'The newest checkpoint',
        description:
          'Keep it where nobody who can write to this store can reach it. `bun run audit verify EXPORT --checkpoint FILE` then shows whether events that it names were cut off, replaced or brought back from an old copy.',
        caller: 'operator',
        answers: { 200: json(Shown, 'The checkpoint.') },
        problems: ['not-found'],
      }),
      async (c) => {
        const [newest] = await checkpoints.list({ limit: 1 })
        if (!newest) throw new Problem('not-found', 'Nothing has been signed yet.')
        return c.json(show(newest))
      },
    )
    .post(
      '/checkpoints',
      ...route({
        summary: 'Keep a checkpoint',
        description: 'Gateway sends each one that it signs. One that was kept elsewhere can be put back.',
        caller: 'operator',
        body: Kept,
        answers: {
          200: json(
            v.object({ missing: v.array(ChainHead) }),
            'The checkpoint is kept. `missing`: the events that it names and the chains do not hold, though they should.',
          ),
        },
      }),
      async (c) => c.json({ missing: await trustedHeads.keep(c.req.valid('json').checkpoint) }),
    )
}

function show({ atMs, jwt }: KeptCheckpoint): v.InferOutput<typeof Shown> {
  return { time: new Date(atMs).toISOString(), checkpoint: jwt }
}
