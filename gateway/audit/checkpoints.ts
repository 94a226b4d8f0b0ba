import {
  ChainHead,
  type Checkpoint,
  keySet,
  MAX_CHECKPOINT_CHARACTERS,
  ownKeys,
  readCheckpoint,
  signCheckpoint,
} from '@posta/common/messages/checkpoint.ts'
import { NAME } from '@posta/common/name.ts'
import type { Component } from '@posta/common/service/component.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { repeat } from '@posta/common/service/repeat.ts'
import { sql } from 'drizzle-orm'
import { sign } from 'hono/jwt'
import * as v from 'valibot'
import type { Keys } from '../accounts/keys.ts'
import type { Writer } from '../database/commit.ts'
import type { Lease } from '../database/lease.ts'
import type { Database } from '../database/open.ts'
import { checkpoints, type PrivateKey } from '../database/schema.ts'

const EVERY_MS = 10 * 60 * 1000
/** While monitor does not answer, or has nothing to tell of yet. */
const PAUSE_MS = 5000
const LOOK_EVERY_MS = 1000
const TIMEOUT_MS = 30_000
/** One is new every 30 days: these reach back further than monitor keeps events. */
const MAX_KEYS = 32

interface Asking {
  readonly key: PrivateKey
  readonly signal: AbortSignal
}

const Heads = v.object({ heads: v.pipe(v.array(ChainHead), v.maxLength(1000)) })
const Kept = v.object({ missing: v.pipe(v.array(ChainHead), v.maxLength(1000)) })

/**
 * Signs where monitor's audit chains are, every 10 minutes and soon after a rotation of the keys, and hands it back for
 * monitor to serve. The lease holder asks, over HTTP, with a token that it issues to itself for a minute: monitor's
 * address comes from the configuration alone, nobody can ask gateway to sign anything, and no secret is added.
 *
 * The last checkpoint stays in gateway's database, out of reach of whoever can write to monitor's store. It is shown to
 * monitor before each new one; once the chains no longer hold it nothing is signed any more, and `check` says so, until an
 * operator looks into it (`bun run checkpoints forget` begins anew).
 */
export function signCheckpoints(parts: {
  url: string
  issuer: string
  database: Database
  writer: Writer
  lease: Pick<Lease, 'current'>
  keys: Pick<Keys, 'current' | 'publicKeys'>
  deps: Pick<Deps, 'now' | 'monotonicMs' | 'newId' | 'fetch'>
  log: Pick<Logger, 'info' | 'warn' | 'error'>
  lookEveryMs?: number
}) {
  const { url, issuer, database, writer, lease, keys, deps, log, lookEveryMs = LOOK_EVERY_MS } = parts
  let nextMs = Number.NEGATIVE_INFINITY
  let triedWith: string | undefined
  let signedBy: string | undefined
  let missing: readonly ChainHead[] = []
  let unreachable = false

  async function ask<Schema extends v.GenericSchema>(
    { key, signal }: Asking,
    path: string,
    answer: Schema,
    body?: object,
  ): Promise<v.InferOutput<Schema>> {
    const iat = Math.floor(deps.now() / 1000)
    const claims = { iss: issuer, aud: NAME, sub: 'gateway', role: 'operator', jti: deps.newId(), iat, exp: iat + 60 }
    const response = await deps.fetch(`${url}/${path}`, {
      method: body ? 'POST' : 'GET',
      headers: {
        Authorization: `Bearer ${await sign(claims, key, key.alg)}`,
        ...(body && { 'Content-Type': 'application/json' }),
      },
      ...(body && { body: JSON.stringify(body) }),
      redirect: 'error',
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    })
    if (!response.ok) throw new Error(`Monitor answered ${response.status} at ${path}.`)
    return v.parse(answer, await response.json())
  }

  /** Whether the chains hold it. */
  async function hand(asking: Asking, jwt: string): Promise<boolean> {
    const before = missing.length
    missing = (await ask(asking, 'checkpoints', Kept, { checkpoint: jwt })).missing
    if (missing.length > 0 && before === 0)
      log.error(
        { missing },
        "monitor's audit chains no longer hold what was signed: no checkpoint is signed until `bun run checkpoints forget`",
      )
    return missing.length === 0
  }

  async function makeCheckpoint(asking: Asking): Promise<void> {
    const { key } = asking
    const [last] = await database.select().from(checkpoints)
    // What this database holds needs no signature, and that one may be of a key that is gone.
    const before = last && (await readCheckpoint(last.jwt, keySet(ownKeys(last.jwt))))
    const known = [...(await keys.publicKeys()), ...(before?.keys ?? [])]
    const all = [...new Map(known.map((each) => [each.kid, each])).values()].slice(0, MAX_KEYS)
    if (before && !last.forgotten && !(await hand(asking, signCheckpoint({ ...before, keys: all }, key)))) return
    const { heads } = await ask(asking, 'heads', Heads)
    if (heads.length === 0) {
      nextMs = deps.monotonicMs() + PAUSE_MS
      return
    }
    if (signedBy === key.kid && !last?.forgotten && JSON.stringify(heads) === JSON.stringify(before?.heads)) return
    const checkpoint: Checkpoint = { issuer, atMs: deps.now(), heads, keys: all }
    const jwt = signCheckpoint(checkpoint, key)
    if (jwt.length > MAX_CHECKPOINT_CHARACTERS) throw new Error('Monitor tells of too many chains.')
    const held = lease.current()
    if (!held || !(await hand(asking, jwt))) return
    await writer.write([
      sql`INSERT INTO ${checkpoints} (id, jwt) SELECT 1, ${jwt} WHERE ${held.stillHeld}
        ON CONFLICT (id) DO UPDATE SET jwt = excluded.jwt, forgotten = FALSE`,
    ])
    signedBy = key.kid
  }

  async function run(signal: AbortSignal): Promise<void> {
    if (!lease.current()) {
      // What is amiss is for the holder to say.
      missing = []
      return
    }
    const key = await keys.current()
    if (deps.monotonicMs() < nextMs && triedWith === key.kid) return
    triedWith = key.kid
    nextMs = deps.monotonicMs() + EVERY_MS
    try {
      await makeCheckpoint({ key, signal })
      if (unreachable) log.info('checkpoints of the audit chains are signed again')
      unreachable = false
    } catch (error) {
      if (signal.aborted) return
      nextMs = deps.monotonicMs() + PAUSE_MS
      if (!unreachable) log.warn({ err: error }, 'no checkpoint of the audit chains could be signed; trying again')
      unreachable = true
    }
  }

  return {
    ...repeat({ name: 'audit', everyMs: lookEveryMs, tasks: [{ name: 'sign a checkpoint', run }], log }),
    check() {
      if (missing.length > 0)
        throw new Error(`Monitor's chains no longer hold what was signed: ${missing.map(({ chain }) => chain).join()}.`)
    },
  } satisfies Component
}
