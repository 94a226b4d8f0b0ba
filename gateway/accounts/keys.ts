import { ConfigError } from '@posta/common/service/config.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Logger } from '@posta/common/service/log.ts'
import { Problem } from '@posta/common/service/problem.ts'
import type { FindKey, PublicKey } from '@posta/common/service/tokens.ts'
import { sql } from 'drizzle-orm'
import { type PrivateKey, signingKeys } from '../database/schema.ts'
import type { Statement } from '../database/transaction.ts'
import { createKeyEncryption, isSealed } from './key-encryption.ts'
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
  /**
   * Makes a key count no more: within 60 s no service accepts a token of it. Where it was the one that signs, the next one
   * signs from now on. Resolves to the key that signs; undefined where there is no key of this id, and nothing changes.
   */
  revoke(kid: string): Promise<string | undefined>
  /** Encrypts every key anew, under the first key of KEY_ENCRYPTION_KEY. Resolves to how many were not encrypted before. */
  encrypt(): Promise<number>
  list(): Promise<readonly { kid: string; status: Status; isEncrypted: boolean }[]>
}

const ROTATE_AFTER_MS = 30 * 24 * 60 * 60 * 1000
/** How soon this gateway notices a rotation or a revocation by another one or by the command. */
const REREAD_MS = 10 * 1000
const UNKNOWN_KEY_REREAD_MS = 1000

/**
 * Keys as rows of the database, the same for every gateway. `next` is published from its creation, a whole rotation before
 * it signs; `current` signs; `previous` is published for one rotation more. The first gateway makes them.
 * @param options.encryptionKeys which the private keys are encrypted under; by default they are not
 * @throws ConfigError where the keys of the database are encrypted under another key
 */
export async function openKeys(
  options: Pick<AccountOptions, 'database' | 'writer' | 'addEvent' | 'deps'> & {
    encryptionKeys?: readonly Uint8Array<ArrayBuffer>[]
    log?: Pick<Logger, 'warn'>
    deps: Pick<Deps, 'monotonicMs'>
  },
): Promise<Keys> {
  const { database, writer, addEvent, encryptionKeys = [], log, deps } = options
  const encryption = await createKeyEncryption(encryptionKeys)
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

  async function freshKey() {
    const key = await createKey(deps.newId())
    return { kid: key.kid, privateJwk: await encryption.seal(key), publicJwk: publicPart(key) }
  }

  function insertKey(key: Awaited<ReturnType<typeof freshKey>>, status: Status): Statement {
    const nowMs = deps.now()
    const row = { ...key, status, createdAt: nowMs, activatedAt: status === 'current' ? nowMs : null }
    return database.insert(signingKeys).values(row).onConflictDoNothing()
  }

  async function rotate(): Promise<string> {
    const before = await read()
    const current = required(before, 'current')
    const next = required(before, 'next')
    const fresh = await freshKey()
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

  async function revoke(kid: string): Promise<string | undefined> {
    const before = await read()
    if (!before.values().some((row) => row.kid === kid)) return undefined
    const fresh = await freshKey()
    // Whatever another gateway has done since the read: the key goes, and what is missing without it takes its place.
    await writer.write([
      addEvent('posta.key.revoked', { kid }, sql`EXISTS (SELECT 1 FROM ${signingKeys} WHERE kid = ${kid})`),
      sql`DELETE FROM ${signingKeys} WHERE kid = ${kid}`,
      sql`UPDATE ${signingKeys} SET status = 'current', activated_at = ${deps.now()}
        WHERE status = 'next' AND NOT EXISTS (SELECT 1 FROM ${signingKeys} WHERE status = 'current')`,
      insertKey(fresh, 'next'),
    ])
    return required(await read(), 'current').kid
  }

  async function encrypt(): Promise<number> {
    const rows = [...(await read()).values()]
    for (const { kid, privateJwk } of rows) {
      const sealed = JSON.stringify(await encryption.seal(await encryption.open(kid, privateJwk)))
      // A key never changes, so nothing that another gateway does meanwhile is lost.
      await writer.write([sql`UPDATE ${signingKeys} SET private_jwk = ${sealed} WHERE kid = ${kid}`])
    }
    await read()
    return rows.filter(({ privateJwk }) => !isSealed(privateJwk)).length
  }

  const [current, next] = [await freshKey(), await freshKey()]
  if ((await read()).size === 0) await writer.write([insertKey(current, 'current'), insertKey(next, 'next')])
  required(await read(), 'current')
  const rows = [...(await keys()).values()]
  for (const { kid, privateJwk } of rows)
    await encryption.open(kid, privateJwk).catch(() => {
      throw new ConfigError([
        'KEY_ENCRYPTION_KEY: the signing keys in the database are encrypted under another key. Add that one, after a comma',
      ])
    })
  if (encryptionKeys.length > 0 && !rows.every(({ privateJwk }) => isSealed(privateJwk)))
    log?.warn('signing keys in the database are not encrypted yet: run `bun run keys encrypt`')

  const publicKeys = async (maxAgeMs?: number) => [...(await keys(maxAgeMs)).values()].map(({ publicJwk }) => publicJwk)
  return {
    async current() {
      const { kid, privateJwk } = required(await keys(), 'current')
      return encryption.open(kid, privateJwk).catch((error: unknown) => {
        throw new Problem('keys-unavailable', undefined, { retryAfterS: 5, cause: error })
      })
    },
    publicKeys: () => publicKeys(),
    async find(kid) {
      const has = (key: PublicKey) => key.kid === kid
      return (await publicKeys()).find(has) ?? (await publicKeys(UNKNOWN_KEY_REREAD_MS)).find(has)
    },
    rotate,
    revoke,
    encrypt,
    async list() {
      const rows = (await read()).values().map((row) => ({ ...row, isEncrypted: isSealed(row.privateJwk) }))
      return [...rows.map(({ kid, status, isEncrypted }) => ({ kid, status, isEncrypted }))]
    },
    async rotateIfDue() {
      const { activatedAt } = required(await keys(), 'current')
      if (activatedAt !== null && deps.now() - activatedAt >= ROTATE_AFTER_MS) await rotate()
    },
  }
}

/** For a WHERE: whether a key has this status now. */
function is(kid: string, status: Status) {
  return sql`EXISTS (SELECT 1 FROM ${signingKeys} WHERE ${signingKeys.kid} = ${kid} AND ${signingKeys.status} = ${status})`
}

/** The keys of the configuration: the first one signs. They change only with the configuration. */
export function fixedKeys({ keys }: PrivateKeySet): Pick<Keys, 'current' | 'publicKeys' | 'find' | 'rotateIfDue'> {
  const publicKeys = keys.map(publicPart)
  return {
    current: async () => keys[0],
    publicKeys: async () => publicKeys,
    find: async (kid) => publicKeys.find((key) => key.kid === kid),
    rotateIfDue: async () => {},
  }
}
