import { afterEach, expect, test } from 'bun:test'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { asc, sql } from 'drizzle-orm'
import { countOutbox, MAX_ROWS } from '../database/outbox.ts'
import { operations, outbox, refreshTokens, users } from '../database/schema.ts'
import { openAccounts } from '../testing/accounts.ts'
import { openTemporary } from '../testing/database.ts'
import { everyType, fixedSources, submission } from '../testing/operations.ts'
import { startRelay } from './relay.ts'
import { createSubmit } from './submit.ts'

const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const lease = { current: () => ({ epoch: 1, stillHeld: sql`TRUE` }), close: async () => {} }

/** Two gateways with one database, whose outbox has room for `maxOutboxRows` operations. */
async function open(maxOutboxRows: number) {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  const accepted: string[] = []
  const parts = { ...opened, sources: fixedSources, offered: everyType, deps: systemDeps, maxOutboxRows }
  const submits = [0, 1].map(() => createSubmit({ ...parts, onAccepted: (type) => accepted.push(type) }))
  let submitted = 0
  return {
    ...opened,
    accepted,
    /** Submits to the two in turn. Resolves to the operation's id, or to the code of the problem. */
    async submit(user = `user-${submitted % 50}`, idempotencyKey?: string): Promise<string> {
      const submit = submits[submitted++ % 2]
      try {
        return (await submit?.({ user, submission, idempotencyKey }))?.id ?? 'there is no such gateway'
      } catch (error) {
        if (!(error instanceof Problem)) throw error
        return error.code
      }
    },
  }
}

/** A relay and the broker that it sends to, which is away at first. */
function relayOf({ database, writer }: Awaited<ReturnType<typeof open>>) {
  const published: Outgoing[] = []
  const lines: object[] = []
  const broker = { isAway: true, largest: 0 }
  const log = createLog('test', 'silent')
  log.info = (facts: object) => void lines.push(facts)
  const relay = startRelay({
    database,
    writer,
    lease,
    broker: {
      async publish(messages) {
        broker.largest = Math.max(broker.largest, messages.length)
        if (broker.isAway) throw new Error('The broker is away.')
        published.push(...messages)
        return []
      },
    },
    log,
    deps: systemDeps,
  })
  cleanups.push(() => relay.close(1000))
  return { relay, broker, published, lines }
}

const subjectOf = ({ headers }: Outgoing) =>
  Buffer.from(headers.find(([name]) => name === 'ce_subject')?.[1] ?? []).toString()

test('while the broker is away all gateways together accept exactly as many operations as the bound allows, then refuse them as overloaded', async () => {
  const gateway = await open(700)
  const { database, accepted, submit } = gateway
  const outcomes = await Promise.all(Array.from({ length: 1000 }, () => submit()))
  expect(outcomes.filter((outcome) => outcome === 'overloaded')).toHaveLength(300)
  expect(accepted).toHaveLength(700)
  expect(await database.$count(operations)).toBe(700)
  expect(await countOutbox(database)).toBe(700)
  expect(await submit()).toBe('overloaded')
})

test('a refusal says when to try again and uses no key up; a key that was used before is still answered', async () => {
  const { database, writer, submit, accepted } = await open(2)
  const first = await submit('ana', 'key-1')
  await submit('ana')
  const refused = await createSubmit({
    database,
    writer,
    sources: fixedSources,
    offered: everyType,
    onAccepted() {},
    deps: systemDeps,
    maxOutboxRows: 2,
  })({
    user: 'ana',
    submission,
    idempotencyKey: 'key-2',
  }).catch((error: unknown) => error)
  expect(refused).toMatchObject({ code: 'overloaded', retryAfterS: 10 })
  expect(await submit('ana', 'key-1')).toBe(first)
  expect(accepted).toHaveLength(2)
  await writer.write([database.delete(outbox)])
  expect(await submit('ana', 'key-2')).toMatch(/^[\da-f]{8}-/)
})

test('once the broker is back the backlog is sent in the order of acceptance, in batches, and logged once; operations are accepted again', async () => {
  const gateway = await open(1700)
  const { database, submit } = gateway
  const { relay, broker, published, lines } = relayOf(gateway)
  await Promise.all(Array.from({ length: 1800 }, () => submit()))
  await eventually(() => {
    try {
      relay.check()
      return false
    } catch {
      return true
    }
  })
  expect(await submit()).toBe('overloaded')
  const accepted = await database.select({ id: outbox.operationId }).from(outbox).orderBy(asc(outbox.id))

  broker.isAway = false
  await eventually(async () => (await countOutbox(database)) === 0)
  expect(published.map(subjectOf)).toEqual(accepted.map(({ id }) => id ?? ''))
  expect(broker.largest).toBe(500)
  expect(lines).toEqual([{ messages: 1700, tookMs: expect.any(Number), perSecond: expect.any(Number) }])
  relay.check()

  expect(await submit()).toMatch(/^[\da-f]{8}-/)
  await eventually(() => published.length === 1701)
  expect(lines).toHaveLength(1)
})

test('a relay whose publish hangs closes within its grace period and leaves its rows to the next relay', async () => {
  const { database, writer, submit } = await open(10)
  const asked = Promise.withResolvers<void>()
  const relay = startRelay({
    database,
    writer,
    lease,
    broker: {
      publish() {
        asked.resolve()
        return new Promise(() => {})
      },
    },
    log: createLog('test', 'silent'),
    deps: systemDeps,
  })
  await submit()
  await asked.promise
  await relay.close(20)
  expect(await countOutbox(database)).toBe(1)
})

test('logins still work when no operation is accepted any more; once the outbox is full they are refused, since their events cannot be stored', async () => {
  const { database, writer, close, register, logIn, ...accounts } = await openAccounts()
  cleanups.push(close)
  const credentials = { email: 'ana@example.com', password: 'four words nobody says' }
  await register(credentials)
  const submit = createSubmit({
    ...accounts,
    database,
    writer,
    sources: fixedSources,
    offered: everyType,
    onAccepted() {},
    maxOutboxRows: 1,
  })
  await expect(submit({ user: 'ana', submission })).rejects.toMatchObject({ code: 'overloaded' })
  await logIn(credentials, '192.0.2.1')

  // As full as if there were a row for every id in between.
  const [first] = await database.select({ id: outbox.id }).from(outbox).orderBy(asc(outbox.id)).limit(1)
  const lastId = (first?.id ?? 0) + MAX_ROWS - 1
  await writer.write([sql`INSERT INTO outbox (id, operation_id) VALUES (${lastId}, 'any')`])
  const before = { sessions: await database.$count(refreshTokens), rows: await database.$count(outbox) }
  const other = writer.write([sql`UPDATE ${users} SET role = 'operator'`])
  const refused = await Promise.all([
    logIn(credentials, '192.0.2.1').catch((error: unknown) => error),
    logIn({ ...credentials, password: 'another one' }, '192.0.2.1').catch((error: unknown) => error),
  ])
  for (const error of refused) expect(error).toMatchObject({ code: 'overloaded', retryAfterS: 10 })
  expect(await database.$count(refreshTokens)).toBe(before.sessions)
  expect(await database.$count(outbox)).toBe(before.rows)
  // A write without an event succeeds.
  await other

  await writer.write([sql`DELETE FROM outbox WHERE id = ${first?.id ?? 0}`])
  await logIn(credentials, '192.0.2.1')
  expect(await database.$count(refreshTokens)).toBe(before.sessions + 1)
})
