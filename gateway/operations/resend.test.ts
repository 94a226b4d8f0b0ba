import { afterEach, expect, test } from 'bun:test'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { asc, eq, sql } from 'drizzle-orm'
import { operations, outbox } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { everyType, fixedSources, progressOf, submission } from '../testing/operations.ts'
import { keepProgress } from './keep-progress.ts'
import type { OperationRow } from './operation.ts'
import { createResend } from './resend.ts'
import { createSubmit } from './submit.ts'

const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const MINUTE_MS = 60_000

async function open() {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  const { database, writer } = opened
  let passedMs = 0
  const deps = { newId: systemDeps.newId, now: () => Date.UTC(2026, 10, 23) + passedMs, monotonicMs: () => passedMs }
  const submit = createSubmit({ ...opened, sources: fixedSources, offered: everyType, onAccepted: () => {}, deps })
  const keep = writer.bulk(keepProgress(deps.now))
  const resend = createResend({ writer, log: createLog('test', 'silent'), deps })
  return {
    database,
    writer,
    /** An operation whose first request has been sent. */
    async submit() {
      const { id } = await submit({ user: 'ana', submission })
      await writer.write([database.delete(outbox)])
      return id
    },
    /** Its run has done step `n`. */
    step: (id: string, n: number) => keep(progressOf(id, n)),
    /** Its run waits from now on, for this many minutes. */
    wait: (id: string, minutes: number) =>
      keep(progressOf(id, 0, { status: 'waiting', until: new Date(deps.now() + minutes * MINUTE_MS).toISOString() })),
    /** The operations whose requests enter the outbox after this many more minutes. */
    async resentAfter(minutes: number, stillHeld = sql`TRUE`) {
      passedMs += minutes * MINUTE_MS
      await resend({ epoch: 1, stillHeld })
      const rows = await database.select({ id: outbox.operationId }).from(outbox).orderBy(asc(outbox.id))
      await writer.write([database.delete(outbox)])
      return rows.map(({ id }) => id)
    },
  }
}

test('a request is sent again after 2 minutes, and then each time after twice as long as before', async () => {
  const { submit, resentAfter } = await open()
  await submit()
  const resentAt: number[] = []
  for (let minute = 1; minute <= 130; minute++) if ((await resentAfter(1)).length > 0) resentAt.push(minute)
  expect(resentAt).toEqual([2, 6, 14, 30, 62, 126])
})

test('while an operation waits nothing is sent again, nor after a restart; then again two minutes after the wait', async () => {
  const { submit, resentAfter, wait } = await open()
  const id = await submit()
  await resentAfter(1)
  await wait(id, 600)
  const resentAt: number[] = []
  for (let minute = 2; minute <= 700; minute++) if ((await resentAfter(1)).length > 0) resentAt.push(minute)
  expect(resentAt).toEqual([603, 607, 615, 631, 663])
})

test('a run of hours that makes progress is not sent again', async () => {
  const { submit, resentAfter, step } = await open()
  const id = await submit()
  for (let n = 0; n < 300; n++) {
    await step(id, n)
    expect(await resentAfter(1)).toEqual([])
  }
})

test('however often a request was sent, it is sent again within 69 hours', async () => {
  const { submit, resentAfter, database, writer } = await open()
  const id = await submit()
  await writer.write([database.update(operations).set({ resends: 40 })])
  expect(await resentAfter(2)).toEqual([id])
  expect(await resentAfter(69 * 60)).toEqual([id])
})

test('what is due is sent again in the order of acceptance, and nothing that is terminal', async () => {
  const { submit, resentAfter, database, writer } = await open()
  const [first, terminal, last] = [await submit(), await submit(), await submit()]
  const set = (values: Partial<OperationRow>, id: string) =>
    writer.write([database.update(operations).set(values).where(eq(operations.id, id))])
  // Its status alone keeps it back.
  await set({ status: 'succeeded' }, terminal)
  await set({ resendAt: 1 }, last)
  expect(await resentAfter(2)).toEqual([first, last])
})

test('once the lease is lost nothing is sent again, and it is still due for the next holder', async () => {
  const { submit, resentAfter } = await open()
  const id = await submit()
  expect(await resentAfter(2, sql`FALSE`)).toEqual([])
  expect(await resentAfter(1)).toEqual([id])
})

test('it looks for what is due every 5 seconds at most', async () => {
  const { submit, resentAfter, database, writer } = await open()
  const id = await submit()
  const becomeDue = () => writer.write([database.update(operations).set({ resendAt: 0 })])
  expect(await resentAfter(2)).toEqual([id])
  await becomeDue()
  expect(await resentAfter(4.999 / 60)).toEqual([])
  expect(await resentAfter(0.001 / 60)).toEqual([id])
})

test('it sends at most 100 at once, those first that are due for the longest', async () => {
  const { resentAfter, database, writer } = await open()
  const rows = Array.from({ length: 103 }, (_, n) => ({
    ...{ id: `op-${String(n).padStart(3, '0')}`, userId: 'ana', type: sample.type, input: {}, createdAt: 0 },
    // The first three are due last.
    resendAt: n < 3 ? 2 : 1,
  }))
  await writer.write([database.insert(operations).values(rows)])
  expect(await resentAfter(1)).toEqual(rows.slice(3).map(({ id }) => id))
  expect(await resentAfter(1)).toEqual(rows.slice(0, 3).map(({ id }) => id))
})
