import { afterEach, expect, test } from 'bun:test'
import { headerText, type Outgoing } from '@posta/common/messages/message.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { sql } from 'drizzle-orm'
import { type Held, holdLease, type Lease } from '../database/lease.ts'
import { countOutbox } from '../database/outbox.ts'
import { leases, outbox } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { everyType, fixedSources, submission } from '../testing/operations.ts'
import { startRelay } from './relay.ts'
import { RESEND_AFTER_MS } from './resend.ts'
import { createSubmit } from './submit.ts'

const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const log = createLog('test', 'silent')

async function open() {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  const { database, writer } = opened
  let passedMs = 0
  const deps = { newId: systemDeps.newId, now: () => Date.UTC(2026, 10, 23) + passedMs, monotonicMs: () => passedMs }
  const submit = createSubmit({ ...opened, sources: fixedSources, offered: everyType, onAccepted: () => {}, deps })
  const published: Outgoing[] = []
  let refusals = 0
  return {
    database,
    writer,
    published,
    ids: () => published.map((message) => headerText(message, 'ce_id')),
    refuse: (times: number) => {
      refusals = times
    },
    pass: (ms: number) => {
      passedMs += ms
    },
    submit: async (user = 'ana') => (await submit({ user, submission })).id,
    /** The lease of a gateway, which tries for it every `beatMs`. By its clock no time passes. */
    holdLease: (beatMs: number) =>
      holdLease({ database, writer, name: 'relay', deps: { ...deps, monotonicMs: () => 0 }, log, beatMs }),
    startRelay(lease: Lease = leaseInHand(), onPublished: () => unknown = () => {}) {
      const relay = startRelay({
        database,
        writer,
        lease,
        broker: {
          async publish(messages) {
            if (refusals-- > 0) throw new Error('The broker is away.')
            published.push(...messages)
            await onPublished()
            return messages.map(({ topic }, offset) => ({ topic, partition: 0, offset }))
          },
        },
        log,
        deps,
      })
      const close = async () => {
        await relay.close(10_000)
        await lease.close()
      }
      cleanups.push(close)
      return { check: relay.check, close }
    },
  }
}

/** A lease that is held until the test takes it away. */
function leaseInHand() {
  let held: Held | undefined = { epoch: 1, stillHeld: sql`TRUE` }
  return {
    current: () => held,
    lose: () => {
      held = undefined
    },
    close: async () => {},
  }
}

function fails(check: () => void): boolean {
  try {
    check()
    return false
  } catch {
    return true
  }
}

test('what is committed is sent in the order of acceptance, once, and leaves the outbox', async () => {
  const { submit, startRelay, ids, database } = await open()
  startRelay()
  const accepted = await Promise.all(Array.from({ length: 50 }, () => submit()))
  await eventually(async () => (await countOutbox(database)) === 0)
  expect(ids()).toEqual(accepted)
})

test('only one of two relays sends; when it closes, the other goes on where it stopped', async () => {
  const { submit, startRelay, holdLease, ids } = await open()
  const [first] = [startRelay(holdLease(2)), startRelay(holdLease(2))]
  const before = [await submit(), await submit()]
  await eventually(() => ids().length === 2)
  await first?.close()
  const after = await submit()
  await eventually(() => ids().length === 3)
  expect(ids()).toEqual([...before, after])
})

test('a relay whose lease another process has taken deletes nothing from the outbox', async () => {
  const { submit, startRelay, holdLease, ids, database, writer } = await open()
  // As after a long pause of its process: it does not know yet that another has the lease.
  const { close } = startRelay(holdLease(3_600_000), () =>
    writer.write([database.update(leases).set({ owner: 'another', epoch: 2 })]),
  )
  const id = await submit()
  await eventually(() => ids().includes(id))
  await close()
  expect(await database.select({ id: outbox.operationId }).from(outbox)).toEqual([{ id }])
})

test('a relay that loses its lease while it sends publishes no further batch', async () => {
  const { submit, startRelay, ids, database } = await open()
  const accepted = await Promise.all(Array.from({ length: 600 }, (_, index) => submit(`user-${index % 10}`)))
  const lease = leaseInHand()
  const { close } = startRelay(lease, lease.lose)
  await eventually(() => ids().length > 0)
  await close()
  expect(ids()).toEqual(accepted.slice(0, 500))
  expect(await countOutbox(database)).toBe(100)
})

test('while the broker is away the relay is failing; when it is back it gets everything in order', async () => {
  const { submit, startRelay, ids, refuse } = await open()
  refuse(2)
  const { check } = startRelay()
  const accepted = [await submit(), await submit()]
  await eventually(() => fails(check))
  await eventually(() => ids().length === 2)
  expect(ids()).toEqual(accepted)
  await eventually(() => !fails(check))
})

test('an operation that is still pending after two minutes is sent again, the same to the byte', async () => {
  const { submit, startRelay, published, pass } = await open()
  startRelay()
  await submit()
  await eventually(() => published.length === 1)
  pass(RESEND_AFTER_MS)
  await eventually(() => published.length === 2)
  const [first, again] = published
  expect<Outgoing | undefined>(again).toEqual(first)
})

test('a relay without the lease sends nothing, and is well', async () => {
  const { submit, startRelay, published } = await open()
  let check = () => {}
  const failed: boolean[] = []
  const current = () => {
    failed.push(fails(check))
    return undefined
  }
  check = startRelay({ current, close: async () => {} }).check
  await submit()
  await eventually(() => failed.length > 2)
  expect(failed).not.toContain(true)
  expect(published).toEqual([])
})

test('what is in the outbox of an operation that has ended, or is gone, is not sent, and holds up nothing', async () => {
  const { submit, startRelay, writer, ids, database } = await open()
  const [ended, gone, pending] = [await submit(), await submit(), await submit()]
  await writer.write([
    sql`UPDATE operations SET status = 'succeeded' WHERE id = ${ended}`,
    sql`DELETE FROM operations WHERE id = ${gone}`,
  ])
  startRelay()
  await eventually(async () => (await countOutbox(database)) === 0)
  expect(ids()).toEqual([pending])
})
