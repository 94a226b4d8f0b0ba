import type { AnyEnvelope } from '@posta/common/messages/envelope.ts'
import type { OperationType } from '@posta/common/operations/catalog.ts'
import type { ProblemCode } from '@posta/common/service/problem.ts'
import type { PublicKey } from '@posta/common/service/tokens.ts'
import { sql } from 'drizzle-orm'
import { check, index, integer, primaryKey, sqliteTable, text, uniqueIndex } from 'drizzle-orm/sqlite-core'

// Times are in ms since the epoch. A column without a name has that of its member. After a change here run `bun run --cwd gateway migration`.

export const users = sqliteTable('users', {
  id: text().primaryKey(),
  /** In lower case. */
  email: text().notNull().unique(),
  passwordHash: text('password_hash').notNull(),
  role: text().$type<'user' | 'operator'>().notNull().default('user'),
  disabledAt: integer('disabled_at'),
  createdAt: integer('created_at').notNull(),
})

/** Every refresh token that has not expired; used ones too, to detect their reuse. A session that ends loses its rows. */
export const refreshTokens = sqliteTable(
  'refresh_tokens',
  {
    /** SHA-256 of the token, which is itself stored nowhere. */
    hash: text().primaryKey(),
    sessionId: text('session_id').notNull(),
    userId: text('user_id')
      .notNull()
      .references(() => users.id),
    createdAt: integer('created_at').notNull(),
    usedAt: integer('used_at'),
    /** Set with `usedAt`. The successor is computed from it and the token, which only its owner has. */
    successorSalt: text('successor_salt'),
    /** Set with `usedAt`: the device that used it, or an empty text. Null where a gateway without device tokens wrote it. */
    usedBy: text('used_by'),
    expiresAt: integer('expires_at').notNull(),
    sessionExpiresAt: integer('session_expires_at').notNull(),
    /** How often its session had been refreshed when the token was made. */
    refreshes: integer().notNull().default(0),
  },
  (table) => [
    index('refresh_tokens_by_session').on(table.sessionId),
    index('refresh_tokens_unused').on(table.userId, table.sessionId).where(sql`"used_at" IS NULL`),
    index('refresh_tokens_by_user').on(table.userId),
    index('refresh_tokens_by_expiry').on(table.expiresAt),
  ],
)

/**
 * A session that ended, or a user whose role changed or who was disabled or enabled, while access tokens of before may still
 * be alive: see accounts/revocations.ts.
 */
export const revocations = sqliteTable(
  'revocations',
  {
    /** The id of a session or of a user. */
    subject: text().primaryKey(),
    at: integer().notNull(),
  },
  (table) => [index('revocations_by_time').on(table.at)],
)

/** A private Ed25519 key (RFC 8037): the public one and `d`. */
export type PrivateKey = PublicKey & { readonly d: string }

/** A private key under AES-256-GCM: its iv and what it encrypts to, in base64url. See accounts/key-encryption.ts. */
export interface SealedKey {
  readonly A256GCM: string
}

/** At most one row per status: the first gateway to write it decides. */
export const signingKeys = sqliteTable('signing_keys', {
  kid: text().primaryKey(),
  status: text().$type<'next' | 'current' | 'previous'>().notNull().unique(),
  privateJwk: text('private_jwk', { mode: 'json' }).$type<PrivateKey | SealedKey>().notNull(),
  publicJwk: text('public_jwk', { mode: 'json' }).$type<PublicKey>().notNull(),
  createdAt: integer('created_at').notNull(),
  /** When it began to sign; null before. */
  activatedAt: integer('activated_at'),
})

/** A message of an operation's progress, as it is kept. `forSignal`: it waits for an answer. */
export interface ProgressEntry {
  readonly step: string
  readonly status: 'done' | 'undone' | 'waiting'
  /** RFC 3339. */
  readonly at: string
  readonly forSignal?: boolean
}

export const operations = sqliteTable(
  'operations',
  {
    /** A UUID of version 7: ids sort by time. */
    id: text().primaryKey(),
    userId: text('user_id').notNull(),
    type: text().$type<OperationType>().notNull(),
    status: text().$type<'pending' | 'succeeded' | 'failed'>().notNull().default('pending'),
    input: text({ mode: 'json' }).$type<Record<string, unknown>>().notNull(),
    /** What its preparer learned, for processor; null if it has none, and once the operation is terminal. */
    facts: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    output: text({ mode: 'json' }).$type<Record<string, unknown>>(),
    errorCode: text('error_code').$type<ProblemCode>(),
    errorMessage: text('error_message'),
    traceparent: text(),
    idempotencyKey: text('idempotency_key'),
    createdAt: integer('created_at').notNull(),
    completedAt: integer('completed_at'),
    /** What its run has recorded so far, by number; null where nothing. It may grow after the operation is terminal. */
    progress: text({ mode: 'json' }).$type<Record<string, ProgressEntry>>(),
    /** Whether the latest progress is a wait for an answer. It means something while the operation is pending. */
    waiting: integer({ mode: 'boolean' }).notNull().default(false),
    /** When it was asked to cancel, or given an answer: `cancel`, and `signal.` with the name of each signal. */
    inputs: text({ mode: 'json' }).$type<Record<string, number>>(),
    /** When its request is sent again, if it is still pending then. Null once it is terminal. */
    resendAt: integer('resend_at'),
    /** How often its request has been sent again. */
    resends: integer().notNull().default(0),
  },
  (table) => [
    uniqueIndex('operations_by_idempotency_key')
      .on(table.userId, table.idempotencyKey)
      .where(sql`"idempotency_key" IS NOT NULL`),
    index('operations_by_user').on(table.userId, table.id),
    index('operations_pending_by_user').on(table.userId).where(sql`"status" = 'pending'`),
    index('operations_waiting_by_user').on(table.userId).where(sql`"status" = 'pending' AND "waiting" = 1`),
    index('operations_pending_by_resend').on(table.resendAt).where(sql`"status" = 'pending'`),
  ],
)

/** For a WHERE. The value is in the text: SQLite does not use a partial index for a bound parameter. */
export const isPending = sql`${operations.status} = 'pending'`

/** Messages still to be published, lowest id first: an operation's request (made from its row) or an event. */
export const outbox = sqliteTable(
  'outbox',
  {
    id: integer().primaryKey({ autoIncrement: true }),
    operationId: text('operation_id'),
    event: text({ mode: 'json' }).$type<AnyEnvelope>(),
  },
  () => [check('outbox_request_or_event', sql`("operation_id" IS NULL) <> ("event" IS NULL)`)],
)

/** How much of a quota a user has used in the latest period: see quotas.ts. One row for each, which stays. */
export const usage = sqliteTable(
  'usage',
  {
    userId: text('user_id').notNull(),
    quota: text().notNull(),
    /** Periods since the epoch. */
    period: integer().notNull(),
    used: integer().notNull(),
  },
  (table) => [primaryKey({ columns: [table.userId, table.quota] })],
)

/** Failed logins, registrations and the like: see accounts/throttle.ts. A row means nothing once its time has passed. */
export const attempts = sqliteTable(
  'attempts',
  {
    /** A keyed hash of what is counted: no email and no address can be read from it. */
    key: text().primaryKey(),
    /** When the count is zero again. */
    zeroAt: integer('zero_at').notNull(),
  },
  (table) => [index('attempts_by_time').on(table.zeroAt)],
)

/** Random secrets that all gateways share: the first gateway to write one decides. */
export const secrets = sqliteTable('secrets', {
  name: text().primaryKey(),
  value: text().notNull(),
})

/** See lease.ts. */
export const leases = sqliteTable('leases', {
  name: text().primaryKey(),
  /** Null once released. */
  owner: text(),
  epoch: integer().notNull(),
  beat: integer().notNull(),
})

/** The last checkpoint that monitor took: see audit/checkpoints.ts. One row at most. */
export const checkpoints = sqliteTable(
  'checkpoints',
  {
    id: integer().primaryKey(),
    jwt: text().notNull(),
    /** The chains need not contain it any more. Its keys stay known. */
    forgotten: integer({ mode: 'boolean' }).notNull().default(false),
  },
  () => [check('checkpoints_one', sql`"id" = 1`)],
)
