import { eventNetwork } from '@posta/common/service/network.ts'
import { checkInput, Problem } from '@posta/common/service/problem.ts'
import { and, eq, isNull, type SQL, sql } from 'drizzle-orm'
import * as v from 'valibot'
import { refreshTokens, users } from '../database/schema.ts'
import { countUse, defaultQuotas, exceeded, type Quotas, type Role, roomOf } from '../quotas.ts'
import type { Grant } from './access-tokens.ts'
import { DeviceToken, RefreshToken, type Tokens } from './credentials.ts'
import type { Devices } from './devices.ts'
import type { AccountOptions } from './options.ts'
import {
  decideRefresh,
  endSession,
  hashToken,
  isOtherDevice,
  type RefreshTokenRow,
  rotateToken,
  sessionExists,
  successorOf,
} from './sessions.ts'

export const Refresh = v.strictObject({ refreshToken: RefreshToken, deviceToken: v.optional(DeviceToken) })

/** How a token is used: `usedBy` is the device, or an empty text. */
interface Use {
  readonly token: string
  readonly usedBy: string
  readonly network: string | undefined
}

/**
 * Makes the function that replaces a refresh token. Presented again within 30 s, while its successor is unused and from the
 * device that used it, a token gets the same successor: a lost answer logs nobody out, and an event tells of it. Any other
 * reuse ends the session, since one of the two who hold the token is a thief. `address` is the client's IP address.
 * @throws Problem `invalid-input`, `invalid-credentials`, `quota-exceeded`, `overloaded`
 */
export function createRefresh(
  options: AccountOptions & { grant: Grant; devices: Devices; quotas?: Quotas },
): (refresh: unknown, address?: string) => Promise<Tokens> {
  const { database, writer, grant, devices, addEvent, quotas = defaultQuotas, deps } = options

  /** The token's row and user, its successor and the successor's row. Undefined where its user is disabled. */
  async function find(token: string) {
    const [found] = await database
      .select({ row: refreshTokens, user: users })
      .from(refreshTokens)
      .innerJoin(users, eq(users.id, refreshTokens.userId))
      .where(and(eq(refreshTokens.hash, hashToken(token)), isNull(users.disabledAt)))
    if (!found) return undefined
    const { successorSalt } = found.row
    if (successorSalt === null) return { ...found, successor: undefined, next: undefined }
    const successor = successorOf(token, successorSalt)
    const isSuccessor = eq(refreshTokens.hash, hashToken(successor))
    const [next] = await database.select().from(refreshTokens).where(isSuccessor)
    return { ...found, successor, next }
  }

  /** Does nothing, and resolves to false, if the token was used since `row` was read, or if the user's quota is used up. */
  async function rotate(row: RefreshTokenRow, { network, ...use }: Use, role: Role): Promise<boolean> {
    const nowMs = deps.now()
    const room = roomOf(quotas, 'refreshes-per-hour', { user: row.userId, role, atMs: nowMs })
    const { statements, isDone } = rotateToken(row, { ...use, nowMs }, sql`${room} > 0`)
    const [rotated] = await writer.write([
      ...statements,
      addEvent('posta.session.refreshed', { user: row.userId, session: row.sessionId, network }, isDone),
      countOne(row.userId, nowMs, isDone),
    ])
    return rotated?.rowsAffected === 1
  }

  const countOne = (user: string, nowMs: number, condition: SQL) =>
    countUse('refreshes-per-hour', sql`SELECT ${user} AS user, ${nowMs} AS at_ms, 1 AS used WHERE ${condition}`)

  /** @throws Problem `quota-exceeded`, if the quota is used up */
  async function refuse({ id, role }: { id: string; role: Role }): Promise<void> {
    const use = { user: id, role, atMs: deps.now() }
    const problem = await exceeded(database, quotas, use, [['refreshes-per-hour', 1]])
    if (problem) throw problem
  }

  return async (refresh, address = '') => {
    const network = eventNetwork(address)
    const { refreshToken, deviceToken } = checkInput(Refresh, refresh)
    let found = await find(refreshToken)
    const usedBy = (found && devices.identify(found.user.email, deviceToken)) ?? ''
    let isRepeat = true
    if (found && decideRefresh(found.row, undefined, usedBy, deps.now()) === 'rotate') {
      isRepeat = !(await rotate(found.row, { token: refreshToken, usedBy, network }, found.user.role))
      // Of two requests at the same time one has rotated. The other one is a repeat.
      found = await find(refreshToken)
      if (found?.row.usedAt === null) await refuse(found.user)
    }
    const decision = found && decideRefresh(found.row, found.next, usedBy, deps.now())
    const event = found && { user: found.row.userId, session: found.row.sessionId, network }
    if (found?.successor !== undefined && event && decision === 'repeat') {
      if (isRepeat) {
        // Each leaves an event: so it has the quota of the others.
        await refuse(found.user)
        const isThere = sessionExists(event.session)
        await writer.write([
          addEvent('posta.session.repeated', event, isThere),
          countOne(event.user, deps.now(), isThere),
        ])
      }
      return grant(found.user, event.session, found.successor)
    }
    if (found && event && decision === 'reuse') {
      const reason = isOtherDevice(found.row, usedBy) ? 'other-device' : 'used-before'
      await writer.write([
        addEvent('posta.session.reuse-detected', { ...event, reason }, sessionExists(event.session)),
        ...endSession(event.session, deps.now()),
      ])
    }
    throw new Problem('invalid-credentials', 'The refresh token is not valid, or its session has ended.')
  }
}
