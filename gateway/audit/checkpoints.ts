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
import { signAccessToken } from '@posta/common/service/tokens.ts'
import { eq, sql } from 'drizzle-orm'
import * as v from 'valibot'
import type { Keys } from '../accounts/keys.ts'
import type { Writer } from '../database/commit.ts'
import type { Lease } from '../database/lease.ts'
import type { Database } from '../database/open.ts'
import { checkpoints, type PrivateKey } from '../database/schema.ts'

const EVERY_MS = 10 * 60 * 1000
/** While monitor does not answer, has no event yet, or does not have what was signed. */
const PAUSE_MS = 5000
const LOOK_EVERY_MS = 1000
const TIMEOUT_MS = 30_000
/** There is a new key every 30 days: these reach back further than monitor keeps events. */
const MAX_KEYS = 32

const Heads = v.object({ heads: v.pipe(v.array(ChainHead), v.maxLength(1000)) })
const Kept = v.object({
  missing: v.pipe(v.array(ChainHead), v.maxLength(1000)),
  storeIsNew: v.optional(v.boolean(), false),
})

type Row = typeof checkpoints.$inferSelect

interface Options {
  url: string
  issuer: string
  database: Database
  writer: Writer
  lease: Pick<Lease, 'current'>
  keys: Pick<Keys, 'current' | 'publicKeys'>
  deps: Pick<Deps, 'now' | 'monotonicMs' | 'newId' | 'fetch'>
  log: Pick<Logger, 'info' | 'warn' | 'error'>
  lookEveryMs?: number
}

/**
 * Signs the heads of monitor's audit chains, every 10 minutes and soon after a rotation of the keys, and sends the
 * checkpoint to monitor, which serves it. The lease holder asks, over HTTP, with a token that it issues to itself for a
 * minute: monitor's address comes from the configuration alone, nobody can ask gateway to sign anything, and no secret is
 * added.
 *
 * The last checkpoint stays in gateway's database, out of reach of whoever can write to monitor's store. Monitor compares
 * its chains with it before each new one. While they do not have what was signed, nothing more is signed and the check
 * fails, until an operator runs `bun run checkpoints forget`; that is seen within a second.
 */
export function signCheckpoints(options: Options) {
  const { issuer, database, writer, lease, keys, deps, log, lookEveryMs = LOOK_EVERY_MS } = options
  let nextMs = Number.NEGATIVE_INFINITY
  let triedWith: string | undefined
  let signedBy: string | undefined
  let wasForgotten = false
  let fault: string | undefined
  let unreachable = false

  /** Sends a checkpoint to monitor. Whether its chains have what the checkpoint covers. */
  async function send(ask: Ask, checkpoint: Checkpoint, jwt: string): Promise<boolean> {
    const { missing, storeIsNew } = await ask('checkpoints', Kept, { checkpoint: jwt })
    const found = missing.length === 0 ? undefined : faultOf(checkpoint, missing, storeIsNew)
    if (found !== undefined && found !== fault) log.error({ missing }, `no checkpoint is signed: ${found}`)
    fault = found
    return fault === undefined
  }

  /** Whether the last checkpoint is now up to date. */
  async function makeCheckpoint(ask: Ask, key: PrivateKey, last: Row | undefined): Promise<boolean> {
    // What gateway's own database has needs no verification, and its key may be gone.
    const before = last && (await readCheckpoint(last.jwt, keySet(ownKeys(last.jwt))))
    const known = [...(await keys.publicKeys()), ...(before?.keys ?? [])]
    const all = [...new Map(known.map((each) => [each.kid, each])).values()].slice(0, MAX_KEYS)
    if (!before || last.forgotten) fault = undefined
    else if (!(await send(ask, before, signCheckpoint({ ...before, keys: all }, key)))) return false
    const { heads } = await ask('heads', Heads)
    if (heads.length === 0) return false
    if (signedBy === key.kid && !last?.forgotten && JSON.stringify(heads) === JSON.stringify(before?.heads)) return true
    const checkpoint: Checkpoint = { issuer, atMs: deps.now(), heads, keys: all }
    const jwt = signCheckpoint(checkpoint, key)
    if (jwt.length > MAX_CHECKPOINT_CHARACTERS) throw new Error('Monitor has too many chains for one checkpoint.')
    const held = lease.current()
    if (!held || !(await send(ask, checkpoint, jwt))) return false
    await writer.write([
      sql`INSERT INTO ${checkpoints} (id, jwt) SELECT 1, ${jwt} WHERE ${held.stillHeld}
        ON CONFLICT (id) DO UPDATE SET jwt = excluded.jwt, forgotten = FALSE`,
    ])
    signedBy = key.kid
    return true
  }

  async function attempt(signal: AbortSignal): Promise<void> {
    const key = await keys.current()
    const [last] = await database.select().from(checkpoints)
    const isForgotten = last?.forgotten === true
    const isDue = deps.monotonicMs() >= nextMs || triedWith !== key.kid || (isForgotten && !wasForgotten)
    wasForgotten = isForgotten
    if (!isDue) return
    triedWith = key.kid
    nextMs = deps.monotonicMs() + PAUSE_MS
    if (await makeCheckpoint(askMonitor(options, key, signal), key, last)) nextMs = deps.monotonicMs() + EVERY_MS
    if (unreachable) log.info('checkpoints of the audit chains are signed again')
    unreachable = false
  }

  async function run(signal: AbortSignal): Promise<void> {
    if (!lease.current()) {
      // Only the lease holder compares, and reports what it finds.
      fault = undefined
      return
    }
    try {
      await attempt(signal)
    } catch (error) {
      if (signal.aborted) return
      const reason = error instanceof Error ? error.message : error
      if (!unreachable) log.warn({ reason }, 'no checkpoint of the audit chains could be signed yet; trying again')
      unreachable = true
    }
  }

  return {
    ...repeat({ name: 'audit', everyMs: lookEveryMs, tasks: [{ name: 'sign a checkpoint', run }], log }),
    check() {
      if (fault !== undefined) throw new Error(fault)
    },
  } satisfies Component
}

/**
 * Makes gateways forget the last checkpoint: they no longer compare monitor's chains with it, and sign a new one.
 * Resolves with it; undefined where there is none that was not forgotten before.
 */
export async function forgetCheckpoint(options: Pick<Options, 'database' | 'writer'>): Promise<Checkpoint | undefined> {
  const { database, writer } = options
  const forget = database.update(checkpoints).set({ forgotten: true }).where(eq(checkpoints.forgotten, false))
  const [result] = await writer.write([forget.returning({ jwt: checkpoints.jwt })])
  const jwt = result?.rows[0]?.[0]
  return typeof jwt === 'string' ? readCheckpoint(jwt, keySet(ownKeys(jwt))) : undefined
}

/** What is known, and what an operator can do. */
function faultOf(checkpoint: Checkpoint, missing: readonly ChainHead[], storeIsNew: boolean): string {
  const time = new Date(checkpoint.atMs).toISOString()
  if (storeIsNew)
    return `Monitor's store is new: it has nothing of what was signed at ${time} (${eventsOf(checkpoint)}). If you replaced the store on purpose, run \`bun run checkpoints forget\`. Otherwise its events were deleted, or MONITOR_STORE_URL names the wrong store: restore it.`
  const heads = missing.map(({ chain, seq }) => `${chain} number ${seq}`).join(', ')
  return `Monitor's audit chains no longer have what was signed at ${time}: ${heads}. If you restored an older copy of the store on purpose, run \`bun run checkpoints forget\`. Otherwise events were removed or replaced: \`GET /audit/verify\` at monitor shows where.`
}

/** How many events a checkpoint covers, in words. */
export function eventsOf({ heads }: Checkpoint): string {
  const events = heads.reduce((sum, { seq }) => sum + seq, 0)
  return events === 1 ? '1 event' : `${events} events`
}

type Ask = ReturnType<typeof askMonitor>

/** Requests to monitor below `/audit`, each with a token that gateway issues to itself for a minute. */
function askMonitor({ url, issuer, deps }: Options, key: PrivateKey, signal: AbortSignal) {
  return async <Answer>(path: string, answer: v.GenericSchema<unknown, Answer>, body?: object): Promise<Answer> => {
    const iat = Math.floor(deps.now() / 1000)
    const claims = {
      iss: issuer,
      aud: NAME,
      sub: 'gateway',
      role: 'operator' as const,
      jti: deps.newId(),
      iat,
      exp: iat + 60,
    }
    const token = signAccessToken(claims, key)
    const response = await deps.fetch(`${url}/${path}`, {
      headers: { Authorization: `Bearer ${token}`, 'Content-Type': 'application/json' },
      ...(body && { method: 'POST', body: JSON.stringify(body) }),
      redirect: 'error',
      signal: AbortSignal.any([signal, AbortSignal.timeout(TIMEOUT_MS)]),
    })
    if (!response.ok) throw new Error(`Monitor answered ${response.status} at ${path}.`)
    return v.parse(answer, await response.json())
  }
}
