import { afterEach, expect, test } from 'bun:test'
import { headerText, type Outgoing } from '@posta/common/messages/message.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { eq } from 'drizzle-orm'
import { holdLease } from '../database/lease.ts'
import { operations, outbox } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { conversion, fixedRates } from '../testing/operations.ts'
import { startRelay } from './relay.ts'
import { createSubmit, RESEND_AFTER_MS } from './submit.ts'

const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const log = createLog('test', 'silent')
async function open() {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  let nowMs = Date.now()
  let passedMs = 0
  const deps = { ...systemDeps, now: () => nowMs, monotonicMs: () => performance.now() + passedMs }
  const submit = createSubmit({ ...opened, rates: fixedRates, onAccepted: () => {}, deps })
  const published: Outgoing[] = []
  let refusals = 0
  return {
    ...opened,
    published,
    ids: () => published.map((message) => headerText(message, 'ce_id')),
    refuse: (times: number) => {
      refusals = times
    },
    pass: (ms: number) => {
      nowMs += ms
      passedMs += ms
    },
    submit: async (user = 'ana') => (await submit({ user, submission: conversion })).id,
    /** A gateway's relay, with a lease of its own to hold or to wait for. */
    startRelay: () => {
      const lease = holdLease({ ...opened, name: 'relay', deps: systemDeps, log })
      const relay = startRelay({
        ...opened,
        lease,
        broker: {
          async publish(messages) {
            if (refusals-- > 0) throw new Error('The broker is away.')
            published.push(...messages)
            return messages.map(({ topic }, offset) => ({ topic, partition: 0, offset }))
          },
        },
        log,
        deps,
      })
      const close = async () => {
        await relay.close(1000)
        await lease.close()
      }
      cleanups.push(close)
      return { relay, close }
    },
  }
}

test('what is committed goes out in the order of acceptance, once, and leaves the outbox', async () => {
  const { submit, startRelay, ids, database } = await open()
  startRelay()
  const accepted = await Promise.all(Array.from({ length: 50 }, () => submit()))
  await eventually(async () => (await database.select().from(outbox)).length === 0)
  expect(ids()).toEqual(accepted)
})

test('of two relays one sends; the other goes on where it stopped', async () => {
  const { submit, startRelay, ids } = await open()
  const [first] = [startRelay(), startRelay()]
  const before = [await submit(), await submit()]
  await eventually(async () => ids().length === 2)
  await first?.close()
  const after = await submit()
  await eventually(async () => ids().length === 3)
  expect(ids()).toEqual([...before, after])
})

test('a broker that is away is told of, and gets everything, in order, when it is back', async () => {
  const { submit, startRelay, ids, refuse } = await open()
  refuse(3)
  const { relay } = startRelay()
  const accepted = [await submit(), await submit()]
  await eventually(async () => {
    try {
      relay.check()
      return false
    } catch {
      return true
    }
  })
  await eventually(async () => ids().length === 2)
  expect(ids()).toEqual(accepted)
  await eventually(async () => {
    relay.check()
    return true
  })
})

test('an operation that is still pending after two minutes is sent again, the same to the byte, and then after twice as long', async () => {
  const { submit, startRelay, published, pass, database } = await open()
  startRelay()
  const id = await submit()
  await eventually(async () => published.length === 1)
  pass(RESEND_AFTER_MS + 5000)
  await eventually(async () => published.length === 2)
  const [first, again] = published
  expect<Outgoing | undefined>(again).toEqual(first)
  const [row] = await database.select().from(operations).where(eq(operations.id, id))
  expect(row?.resends).toBe(1)
  pass(RESEND_AFTER_MS + 5000)
  pass(RESEND_AFTER_MS)
  await eventually(async () => published.length === 3)
})

test('a terminal operation is not sent again', async () => {
  const { submit, startRelay, published, pass, database, writer } = await open()
  const id = await submit()
  startRelay()
  await eventually(async () => published.length === 1)
  await writer.write([
    database.update(operations).set({ status: 'succeeded', rates: null, resendAt: null }).where(eq(operations.id, id)),
  ])
  pass(10 * RESEND_AFTER_MS)
  const other = await submit()
  await eventually(async () => published.length >= 2)
  expect(published.slice(1).map((message) => headerText(message, 'ce_id'))).toEqual([other])
})
