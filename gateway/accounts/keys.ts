import type { Deps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { FindKey, PublicKey } from '@posta/common/service/tokens.ts'
import { sql } from 'drizzle-orm'
import { type PrivateKey, signingKeys } from '../database/schema.ts'
import type { Statement } from '../database/transaction.ts'
import { createKey, type PrivateKeySet, publicPart } from './key-set.ts'
import type { AccountOptions } from './options.ts'

type KeyRow = typeof signingKeys.$inferSelect
type Status = KeyRow['status']

/** The keys that access tokens are signed with. Each method may reject with Problem `keys-unavailable`. */
export interface Keys {
  /** The key to sign with. */
  current(): Promise<PrivateKey>
  /** Every key that a valid token may be signed with, now or soon. */
  publicKeys(): Promise<readonly PublicKey[]>
  find: FindKey
  /**
   * Signs with the next key from now on, and resolves to its id. Tokens of the current key stay valid; those of the key
   * before it do not.
   */
  rotate(): Promise<string>
  /** Rotates if the current key has signed for 30 days. */
  rotateIfDue(): Promise<void>
}

const ROTATE_AFTER_MS = 30 * 24 * 60 * 60 * 1000
/** How soon this gateway notices a rotation by another one or by the command. The key before stays valid for much longer. */
const REREAD_MS = 30 * 1000
const UNKNOWN_KEY_REREAD_MS = 1000

/**
 * Keys as rows of the database, the same for every gateway. `next` is published from its creation, a whole rotation before
 * it signs; `current` signs; `previous` is published for one rotation more. The first gateway makes them.
 */
export async function openKeys(
  options: Pick<AccountOptions, 'database' | 'writer' | 'addEvent' | 'deps'> & { deps: Pick<Deps, 'monotonicMs'> },
): Promise<Keys> {
  const { database, writer, addEvent, deps } = options
  let known: { readonly byStatus: ReadonlyMap<Status, KeyRow>; readonly atMs: number } | undefined

  async function read(): Promise<ReadonlyMap<Status, KeyRow>> {
    const rows = await database.select().from(signingKeys)
    const byStatus = new Map(rows.map((row) => [row.status, row]))
    known = { byStatus, atMs: deps.monotonicMs() }
    return byStatus
  }

  /** The rows as they were at most `maxAgeMs` ago; older ones while the database does not answer. */
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
    // If another gateway has rotated since the read, none of these statements finds anything to change.
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

/** The keys of the configuration: the first one signs. They change only with the configuration. */
export function fixedKeys({ keys }: PrivateKeySet): Keys {
  const publicKeys = keys.map(publicPart)
  return {
    current: async () => keys[0],
    publicKeys: async () => publicKeys,
    find: async (kid) => publicKeys.find((key) => key.kid === kid),
    rotate: async () => {
      throw new Error('The keys come from TOKEN_KEYS: rotate them there.')
    },
    rotateIfDue: async () => {},
  }
}
