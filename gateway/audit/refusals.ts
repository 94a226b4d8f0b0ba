import type { Component } from '@posta/common/service/component.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import type { Forbidden } from '@posta/common/service/forbidden.ts'
import type { Logger } from '@posta/common/service/log.ts'
import type { Tally } from '@posta/common/service/tally.ts'
import { tellCounted } from '@posta/common/service/tell-counted.ts'
import { inArray } from 'drizzle-orm'
import type { Throttled } from '../accounts/throttle.ts'
import type { Writer } from '../database/commit.ts'
import type { AddEvent } from '../database/events.ts'
import type { Database } from '../database/open.ts'
import { users } from '../database/schema.ts'

/**
 * Components that put into the outbox, every 5 s, what gateway refused and how often: throttled attempts, and what only others
 * may do. A refused request itself writes nothing.
 */
export function tellRefusals(options: {
  database: Database
  writer: Writer
  addEvent: AddEvent
  throttled: Tally<Throttled>
  forbidden: Tally<Forbidden>
  deps: Pick<Deps, 'newId'>
  log: Pick<Logger, 'info' | 'warn'>
  everyMs?: number
}): Component[] {
  const { database, writer, addEvent, throttled, forbidden, deps, ...more } = options

  /** The ids of users by email. */
  async function idsOf(emails: readonly string[]): Promise<ReadonlyMap<string, string>> {
    if (emails.length === 0) return new Map()
    const rows = await database
      .select({ id: users.id, email: users.email })
      .from(users)
      .where(inArray(users.email, [...emails]))
    return new Map(rows.map(({ id, email }) => [email, id]))
  }

  return [
    tellCounted({
      name: 'throttled attempts',
      tally: throttled,
      async tell(told) {
        const ids = await idsOf(told.flatMap(({ item }) => item.email ?? []))
        await writer.write(
          told.map(({ id, item: { what, email, user = ids.get(email ?? ''), network }, count, from, to }) =>
            addEvent('posta.attempts.throttled', { user, what, network, count, from, to }, undefined, { id }),
          ),
        )
      },
      newId: deps.newId,
      ...more,
    }),
    tellCounted({
      name: 'forbidden requests',
      tally: forbidden,
      async tell(told) {
        await writer.write(
          told.map(({ id, item, count, from, to }) =>
            addEvent('posta.request.forbidden', { ...item, count, from, to }, undefined, { id }),
          ),
        )
      },
      newId: deps.newId,
      ...more,
    }),
  ]
}
