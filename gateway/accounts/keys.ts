import { createPrivateKey, createPublicKey } from 'node:crypto'
import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { FindKey, PublicKey } from '@posta/common/service/tokens.ts'
import { sql } from 'drizzle-orm'
import * as v from 'valibot'
import type { Statement, Writer } from '../database/commit.ts'
import type { AddEvent } from '../database/events.ts'
import type { Database } from '../database/open.ts'
import { type PrivateKey, signingKeys } from '../database/schema.ts'

type KeyRow = typeof signingKeys.$inferSelect
type Status = KeyRow['status']

/** The keys that access tokens are signed with. Each method may reject with Problem `keys-unavailable`. */
export interface Keys {
  /** The one to sign with. */
  current(): Promise<PrivateKey>
  /** Every key that a valid token may be signed with now or soon. */
  publicKeys(): Promise<readonly PublicKey[]>
  find: FindKey
  /** Signs with the next key from now on. Resolves to its id. What the key before the current one signed is no longer valid. */
  rotate(): Promise<string>
  /** Rotates if the current key has signed for 30 days. */
  rotateIfDue(): Promise<void>
}

const ROTATE_AFTER_MS = 30 * 24 * 60 * 60 * 1000
/** How long another gateway's rotation, or the command's, may go unseen. The key before is valid for much longer. */
const REREAD_MS = 30 * 1000
const UNKNOWN_KEY_REREAD_MS = 1000

/**
 * Keys as rows of the database, the same for every gateway: `current` signs, `next` is published from its creation, a
 * whole rotation before it signs, and `previous` for as long after. Whoever comes first makes them.
 */
export async function openKeys(parts: {
  database: Database
  writer: Writer
  addEvent: AddEvent
  deps: Pick<Deps, 'now' | 'monotonicMs' | 'newId'>
}): Promise<Keys> {
  const { database, writer, addEvent, deps } = parts
  let known: { readonly byStatus: ReadonlyMap<Status, KeyRow>; readonly atMs: number } | undefined

  async function read(): Promise<ReadonlyMap<Status, KeyRow>> {
    const rows = await database.select().from(signingKeys)
    const byStatus = new Map(rows.map((row) => [row.status, row]))
    known = { byStatus, atMs: deps.monotonicMs() }
    return byStatus
  }

  /** As of at most `maxAgeMs` ago; older where the database does not answer. */
  async function keys(maxAgeMs = REREAD_MS): Promise<ReadonlyMap<Status, KeyRow>> {
    if (known && deps.monotonicMs() - known.atMs < maxAgeMs) return known.byStatus
    try {
      return await read()
    } catch (error) {
      if (!known) throw new Problem('keys-unavailable', undefined, { retryAfterS: 5, cause: error })
      return known.byStatus
    }
  }

  function required(byStatus: ReadonlyMap<Status, KeyRow>, status: Status): KeyRow {
    const row = byStatus.get(status)
    if (!row) throw new Problem('keys-unavailable', `There is no ${status} signing key.`, { retryAfterS: 5 })
    return row
  }

  function insertKey(key: PrivateKey, status: Status): Statement {
    const nowMs = deps.now()
    const activatedAt = status === 'current' ? nowMs : null
    const row = { kid: key.kid, status, privateJwk: key, publicJwk: publicPart(key), createdAt: nowMs, activatedAt }
    return database.insert(signingKeys).values(row).onConflictDoNothing()
  }

  async function rotate(): Promise<string> {
    const before = await read()
    const current = required(before, 'current')
    const next = required(before, 'next')
    const fresh = await createKey(deps.newId())
    const is = (kid: string, status: Status) =>
      sql`EXISTS (SELECT 1 FROM ${signingKeys} WHERE ${signingKeys.kid} = ${kid} AND ${signingKeys.status} = ${status})`
    // If another has rotated since we read, each of these finds nothing to do.
    await writer.write([
      sql`DELETE FROM ${signingKeys} WHERE status = 'previous' AND ${is(current.kid, 'current')}`,
      sql`UPDATE ${signingKeys} SET status = 'previous' WHERE kid = ${current.kid} AND status = 'current'`,
      sql`UPDATE ${signingKeys} SET status = 'current', activated_at = ${deps.now()}
        WHERE kid = ${next.kid} AND status = 'next' AND ${is(current.kid, 'previous')}`,
      insertKey(fresh, 'next'),
      addEvent('posta.key.rotated', { kid: next.kid }, is(fresh.kid, 'next')),
    ])
    return required(await read(), 'current').kid
  }

  const [current, next] = [await createKey(deps.newId()), await createKey(deps.newId())]
  if ((await read()).size === 0) await writer.write([insertKey(current, 'current'), insertKey(next, 'next')])
  required(await read(), 'current')

  const publicKeys = async (maxAgeMs?: number) => [...(await keys(maxAgeMs)).values()].map(({ publicJwk }) => publicJwk)
  return {
    current: async () => required(await keys(), 'current').privateJwk,
    publicKeys: () => publicKeys(),
    async find(kid) {
      const has = (key: PublicKey) => key.kid === kid
      return (await publicKeys()).find(has) ?? (await publicKeys(UNKNOWN_KEY_REREAD_MS)).find(has)
    },
    rotate,
    async rotateIfDue() {
      const { activatedAt } = required(await keys(), 'current')
      if (activatedAt !== null && deps.now() - activatedAt >= ROTATE_AFTER_MS) await rotate()
    },
  }
}

/** Keys given by configuration: the first one signs, and they change when the configuration does. */
export function fixedKeys({ keys }: PrivateKeySet): Keys {
  const publicKeys = keys.map(publicPart)
  return {
    current: async () => keys[0],
    publicKeys: async () => publicKeys,
    find: async (kid) => publicKeys.find((key) => key.kid === kid),
    rotate: async () => {
      throw new Error('The keys are given by TOKEN_KEYS: rotate them there.')
    },
    rotateIfDue: async () => {},
  }
}

function publicPart({ kty, crv, x, kid, alg, use }: PrivateKey): PublicKey {
  return { kty, crv, x, kid, alg, use }
}

async function createKey(kid: string): Promise<PrivateKey> {
  const pair = await crypto.subtle.generateKey('Ed25519', true, ['sign', 'verify'])
  const { x, d } = await crypto.subtle.exportKey('jwk', pair.privateKey)
  return v.parse(PrivateKeySchema, { kty: 'OKP', crv: 'Ed25519', x, d, kid, alg: 'EdDSA', use: 'sig' })
}

const Bits256 = v.pipe(v.string(), v.regex(/^[\w-]{43}$/))

const PrivateKeySchema = v.object({
  kty: v.literal('OKP'),
  crv: v.literal('Ed25519'),
  x: Bits256,
  d: Bits256,
  kid: v.pipe(v.string(), v.minLength(1), v.maxLength(128)),
  alg: v.optional(v.literal('EdDSA'), 'EdDSA'),
  use: v.optional(v.literal('sig'), 'sig'),
})

const SetOfKeys = v.object({ keys: v.tupleWithRest([PrivateKeySchema], PrivateKeySchema) })

/** A private JWK set, at least one key. Its one fault quotes nothing of it. */
export const PrivateKeySet = v.pipe(
  v.unknown(),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const set = v.safeParse(SetOfKeys, dataset.value)
    if (set.success && set.output.keys.every(isPair)) return set.output
    addIssue({
      message: 'must be a JWK set of Ed25519 private keys (kty, crv, x, d, kid), the first of which signs',
    })
    return NEVER
  }),
)
export type PrivateKeySet = v.InferOutput<typeof PrivateKeySet>

/** Whether `x` belongs to `d`: what the private key signs must be valid under the public one. */
function isPair(key: PrivateKey): boolean {
  try {
    return createPublicKey(createPrivateKey({ key: { ...key }, format: 'jwk' })).export({ format: 'jwk' }).x === key.x
  } catch {
    return false
  }
}
