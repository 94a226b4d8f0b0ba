import { ChainHead, MAX_CHECKPOINT_CHARACTERS } from '@posta/common/messages/checkpoint.ts'
import type { Authenticated, TokenVerifier } from '@posta/common/service/auth.ts'
import { decodeCursor, pageOf, pageQuery, toPage } from '@posta/common/service/pages.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { described } from '@posta/common/service/query.ts'
import { json, routesOf } from '@posta/common/service/route.ts'
import { Hono } from 'hono'
import * as v from 'valibot'
import type { Checkpoints, KeptCheckpoint } from './checkpoints.ts'
import type { SignedCheckpoints } from './signed-checkpoints.ts'
import { Audit, type createAudit } from './verify.ts'

const ShownCheckpoint = v.object({
  time: v.string(),
  checkpoint: v.pipe(
    v.string(),
    v.metadata({
      description:
        'A JWT that gateway has signed. Its claim `heads` has the number and hash of the last event of each chain, `keys` every key with which gateway has signed checkpoints.',
    }),
  ),
})
const VerifyQuery = v.strictObject({ cursor: v.optional(described(v.string(), '`next` of the answer before.')) })
const Position = v.object({ atMs: v.number() })
const Body = v.strictObject({ checkpoint: v.pipe(v.string(), v.maxLength(MAX_CHECKPOINT_CHARACTERS)) })

/** For operators. Mounted at `/audit`. */
export function auditRoutes(options: {
  audit: ReturnType<typeof createAudit>
  checkpoints: Pick<Checkpoints, 'list'>
  signedCheckpoints: Pick<SignedCheckpoints, 'heads' | 'keep'>
  verify: TokenVerifier
}): Hono<Authenticated> {
  const { audit, checkpoints, signedCheckpoints, verify } = options
  const route = routesOf('operating', verify)
  return new Hono<Authenticated>()
    .get(
      '/verify',
      ...route({
        summary: 'Whether the stored events are unchanged',
        description:
          'Checks every chain: each link, each hash, and each field against the text that it follows from. After 20 seconds it answers with what it has found so far and `next`: send that as `cursor` to go on.',
        caller: 'operator',
        query: VerifyQuery,
        answers: { 200: json(Audit, 'What was found.') },
        problems: ['overloaded'],
      }),
      async (c) => c.json(await audit(c.req.valid('query').cursor, c.req.raw.signal)),
    )
    .get(
      '/heads',
      ...route({
        summary: 'The last event of each audit chain',
        description: 'Gateway reads this and signs it as a checkpoint.',
        caller: 'operator',
        answers: { 200: json(v.object({ heads: v.array(ChainHead) }), 'The head of each chain.') },
      }),
      async (c) => c.json({ heads: await signedCheckpoints.heads() }),
    )
    .get(
      '/checkpoints',
      ...route({
        summary: 'The checkpoints that gateway has signed, newest first',
        description: 'The last one of each UTC day.',
        caller: 'operator',
        query: v.strictObject(pageQuery),
        answers: { 200: json(pageOf(ShownCheckpoint), 'A page of checkpoints.') },
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
          'Keep it where nobody can reach it who can write to this store. `bun run audit verify EXPORT --checkpoint FILE` then shows whether events were removed or replaced, or the store is an old copy.',
        caller: 'operator',
        answers: { 200: json(ShownCheckpoint, 'The checkpoint.') },
        problems: ['not-found'],
      }),
      async (c) => {
        const [newest] = await checkpoints.list({ limit: 1 })
        if (!newest) throw new Problem('not-found', 'Gateway has signed no checkpoint yet.')
        return c.json(show(newest))
      },
    )
    .post(
      '/checkpoints',
      ...route({
        summary: 'Keep a checkpoint',
        description:
          'Gateway sends each checkpoint that it signs. A checkpoint that was kept elsewhere can be sent too.',
        caller: 'operator',
        body: Body,
        answers: {
          200: json(
            v.object({ missing: v.array(ChainHead), storeIsNew: v.boolean() }),
            'The checkpoint is kept. `missing`: the heads that the chains should have and do not. `storeIsNew`: nothing in the store is older than the checkpoint.',
          ),
        },
      }),
      async (c) => c.json(await signedCheckpoints.keep(c.req.valid('json').checkpoint)),
    )
}

function show({ atMs, jwt }: KeptCheckpoint): v.InferOutput<typeof ShownCheckpoint> {
  return { time: new Date(atMs).toISOString(), checkpoint: jwt }
}
