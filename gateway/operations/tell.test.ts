import { afterEach, describe, expect, test } from 'bun:test'
import type { AnyEnvelope } from '@posta/common/messages/envelope.ts'
import type { Caller } from '@posta/common/service/auth.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { asc, eq, sql } from 'drizzle-orm'
import { eventAdder } from '../database/events.ts'
import { openDatabase } from '../database/open.ts'
import { MAX_ROWS } from '../database/outbox.ts'
import { operations, outbox } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { answering, everyType, fixedSources, submission } from '../testing/operations.ts'
import { RESEND_AFTER_MS } from './resend.ts'
import { createSubmit } from './submit.ts'
import { createTell, type InputKind } from './tell.ts'

const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const ana: Caller = { user: 'ana', role: 'user' }
const bob: Caller = { user: 'bob', role: 'user' }
const operator: Caller = { user: 'olga', role: 'operator' }

async function open() {
  const opened = await openTemporary()
  const second = await openDatabase({ url: opened.url })
  cleanups.push(opened.close, second.close)
  const { database, writer } = opened
  const told: InputKind[] = []
  const parts = {
    addEvent: eventAdder(systemDeps),
    onTold: (kind: InputKind) => void told.push(kind),
    deps: systemDeps,
  }
  const tell = createTell({ ...opened, ...parts, contracts: answering })
  /** Of another gateway with the same database. */
  const elsewhere = createTell({ ...second, ...parts, contracts: answering })
  const submit = createSubmit({
    ...opened,
    sources: fixedSources,
    offered: everyType,
    onAccepted() {},
    deps: systemDeps,
  })
  return {
    ...opened,
    tell,
    elsewhere,
    told,
    submit: async (user = 'ana') => (await submit({ user, submission })).id,
    finish: (id: string) =>
      writer.write([database.update(operations).set({ status: 'succeeded' }).where(eq(operations.id, id))]),
    /** The outbox after what it holds by now, in its order: the ids of operations, and events. */
    async outbox(): Promise<(string | AnyEnvelope | null)[]> {
      const rows = await database.select().from(outbox).orderBy(asc(outbox.id))
      return rows.map(({ operationId, event }) => event ?? operationId)
    },
  }
}

/** The answer's status, or the code of the problem and its pointers. */
function answerOf(asked: Promise<{ status: string }>): Promise<string> {
  return asked.then(
    ({ status }) => status,
    (error: unknown) => {
      if (!(error instanceof Problem)) throw error
      return [error.code, ...(error.errors ?? []).map(({ pointer }) => pointer)].join(' ')
    },
  )
}

const approve = (id: string, caller: Caller, payload: unknown = { approved: true }) => ({
  caller,
  id,
  name: 'approve',
  payload,
  base: '#/payload',
})

test('a cancel is stored and follows the request, with the same key; it names the owner and who asks', async () => {
  const { tell, submit, told, ...gateway } = await open()
  const id = await submit()
  expect(await tell.cancel({ caller: operator, id })).toMatchObject({ id, status: 'pending' })
  expect(await gateway.outbox()).toEqual([
    id,
    expect.objectContaining({
      id: `${id}.cancel`,
      type: 'posta.operation.cancel-requested',
      subject: id,
      data: { user: 'ana', operation: id, operationType: sample.type, by: 'olga' },
    }),
  ])
  expect(told).toEqual(['cancel'])
})

test('an answer is stored and follows the request, with its payload as the contract reads it', async () => {
  const { tell, submit, told, ...gateway } = await open()
  const id = await submit()
  expect(await tell.signal(approve(id, operator))).toMatchObject({ id, status: 'pending' })
  const data = { user: 'ana', operation: id, operationType: sample.type, by: 'olga', signal: 'approve' }
  expect(await gateway.outbox()).toEqual([
    id,
    expect.objectContaining({
      id: `${id}.signal.approve`,
      type: 'posta.operation.signalled',
      subject: id,
      data: { ...data, payload: { approved: true } },
    }),
  ])
  expect(told).toEqual(['signal'])
})

test('many cancels and answers at once, at two gateways, send one message of each', async () => {
  const { tell, elsewhere, submit, told, ...gateway } = await open()
  const id = await submit()
  const both = [tell, elsewhere]
  const cancels = both.flatMap((each) => Array.from({ length: 10 }, () => answerOf(each.cancel({ caller: ana, id }))))
  const answers = both.flatMap((each) => Array.from({ length: 10 }, () => answerOf(each.signal(approve(id, operator)))))
  expect(new Set(await Promise.all(cancels))).toEqual(new Set(['pending']))
  const answered = await Promise.all(answers)
  expect(answered.filter((answer) => answer === 'pending')).toHaveLength(1)
  expect(answered.filter((answer) => answer === 'already-given')).toHaveLength(19)
  expect(await gateway.outbox()).toHaveLength(3)
  expect(told.toSorted()).toEqual(['cancel', 'signal'])
})

test('a cancel that is asked for again, by another too, answers the same and sends nothing', async () => {
  const { tell, submit, ...gateway } = await open()
  const id = await submit()
  await tell.cancel({ caller: ana, id })
  // Also once the relay has sent the first.
  await gateway.writer.write([gateway.database.delete(outbox)])
  expect(await answerOf(tell.cancel({ caller: operator, id }))).toBe('pending')
  expect(await gateway.outbox()).toEqual([])
})

test('each signal of an operation is given once, and other operations are not affected', async () => {
  const { tell, submit } = await open()
  const [id, other] = [await submit(), await submit()]
  const confirm = (caller: Caller, of = id) =>
    answerOf(tell.signal({ caller, id: of, name: 'confirm', payload: {}, base: '#' }))
  expect(await confirm(ana)).toBe('pending')
  expect(await confirm(ana)).toBe('already-given')
  expect(await answerOf(tell.signal(approve(id, operator)))).toBe('pending')
  expect(await answerOf(tell.cancel({ caller: ana, id }))).toBe('pending')
  expect(await confirm(ana, other)).toBe('pending')
})

describe('is refused, and nothing is sent:', () => {
  type Ask = (tell: Awaited<ReturnType<typeof open>>['tell'], id: string) => Promise<{ status: string }>
  test.each<[string, string, Ask]>([
    ["a cancel of another's operation", 'not-found', (tell, id) => tell.cancel({ caller: bob, id })],
    ['a cancel of no operation', 'not-found', (tell) => tell.cancel({ caller: operator, id: 'none' })],
    ["an answer to another's operation", 'not-found', (tell, id) => tell.signal(approve(id, bob, 'anything'))],
    [
      "an answer of no such name to another's operation",
      'not-found',
      (tell, id) => tell.signal({ ...approve(id, bob), name: 'none' }),
    ],
    ['an answer to no operation', 'not-found', (tell) => tell.signal(approve('none', operator))],
    [
      'an answer that the contract does not have',
      'unknown-signal',
      (tell, id) => tell.signal({ ...approve(id, operator), name: 'toString' }),
    ],
    ['an answer of an operator, given by the owner', 'forbidden', (tell, id) => tell.signal(approve(id, ana))],
    [
      'an answer of an operator, given by an operator who is the owner',
      'forbidden',
      (tell, id) => tell.signal(approve(id, { user: 'ana', role: 'operator' })),
    ],
    [
      "an owner's answer, given by an operator",
      'forbidden',
      (tell, id) => tell.signal({ caller: operator, id, name: 'confirm', payload: {}, base: '#' }),
    ],
    [
      'a payload of another shape',
      'invalid-input #/payload/approved',
      (tell, id) => tell.signal(approve(id, operator, { approved: 'yes' })),
    ],
    [
      'a payload with an unknown member',
      'invalid-input #/payload/more',
      (tell, id) => tell.signal(approve(id, operator, { approved: true, more: 1 })),
    ],
    ['a payload that is no object', 'invalid-input #/payload', (tell, id) => tell.signal(approve(id, operator, 'yes'))],
  ])('%s', async (_, answer, ask) => {
    const { tell, submit, told, ...gateway } = await open()
    const id = await submit()
    expect(await answerOf(ask(tell, id))).toBe(answer)
    expect(await gateway.outbox()).toEqual([id])
    expect(told).toEqual([])
  })

  test('what comes after the end, also if it came before', async () => {
    const { tell, submit, finish, ...gateway } = await open()
    const [asked, other] = [await submit(), await submit()]
    await tell.cancel({ caller: ana, id: asked })
    await tell.signal(approve(asked, operator))
    const sent = await gateway.outbox()
    for (const id of [asked, other]) {
      await finish(id)
      expect(await answerOf(tell.cancel({ caller: ana, id }))).toBe('already-terminal')
      expect(await answerOf(tell.signal(approve(id, operator)))).toBe('already-terminal')
    }
    expect(await gateway.outbox()).toEqual(sent)
  })

  test('a cancel while the outbox is full; asked again later it is sent', async () => {
    const { tell, submit, writer, told, ...gateway } = await open()
    const id = await submit()
    await writer.write([sql`INSERT INTO outbox (id, operation_id) VALUES (${MAX_ROWS}, 'any')`])
    expect(await answerOf(tell.cancel({ caller: ana, id }))).toBe('overloaded')
    await writer.write([sql`DELETE FROM outbox`])
    expect(await answerOf(tell.cancel({ caller: ana, id }))).toBe('pending')
    expect(await gateway.outbox()).toHaveLength(1)
    expect(told).toEqual(['cancel'])
  })
})

test('each refusal says in words what is wrong', async () => {
  const { tell, submit, finish } = await open()
  const id = await submit()
  const confirm = { caller: operator, id, name: 'confirm', payload: {}, base: '#' }
  await expect(tell.cancel({ caller: bob, id })).rejects.toThrow('You have no operation with this id.')
  await expect(tell.signal({ ...confirm, name: 'none' })).rejects.toThrow(
    `${sample.type} waits for no answer of this name.`,
  )
  await expect(tell.signal(confirm)).rejects.toThrow('The owner of the operation gives this answer.')
  await expect(tell.signal(approve(id, ana))).rejects.toThrow(
    'An operator who is not the owner of the operation gives this answer.',
  )
  await tell.signal(approve(id, operator))
  await expect(tell.signal(approve(id, operator))).rejects.toThrow('The operation was given this answer before.')
  await finish(id)
  await expect(tell.cancel({ caller: ana, id })).rejects.toThrow('The operation has ended.')
})

test('a cancel of an operation without steps that failed by dead letter comes too late', async () => {
  const { submit, writer, database } = await open()
  const tell = createTell({ database, writer, addEvent: eventAdder(systemDeps), onTold() {}, deps: systemDeps })
  const id = await submit()
  await writer.write([database.update(operations).set({ status: 'failed', errorCode: 'dead-lettered' })])
  expect(await answerOf(tell.cancel({ caller: ana, id }))).toBe('already-terminal')
})

test('when an operation was cancelled, and given each answer, is kept with it', async () => {
  const { tell, submit, database } = await open()
  const [id, other] = [await submit(), await submit()]
  const before = Date.now()
  await tell.cancel({ caller: ana, id })
  await tell.signal(approve(id, operator))
  const inputsOf = async (of: string) =>
    (await database.select().from(operations).where(eq(operations.id, of)))[0]?.inputs
  expect(await inputsOf(id)).toEqual({ cancel: expect.any(Number), 'signal.approve': expect.any(Number) })
  for (const atMs of Object.values((await inputsOf(id)) ?? {})) expect(atMs).toBeGreaterThanOrEqual(before)
  expect(await inputsOf(other)).toBeNull()
})

test('an operation in steps that failed by dead letter takes answers and cancels: a redrive may have made it go on', async () => {
  const { tell, submit, writer, database } = await open()
  const [one, other] = [await submit(), await submit()]
  const deadLettered = { status: 'failed', errorCode: 'dead-lettered', resendAt: null } as const
  for (const id of [one, other])
    await writer.write([database.update(operations).set(deadLettered).where(eq(operations.id, id))])
  expect(await answerOf(tell.signal(approve(one, operator)))).toBe('failed')
  expect(await answerOf(tell.cancel({ caller: ana, id: one }))).toBe('failed')
  expect(await answerOf(tell.cancel({ caller: ana, id: one }))).toBe('failed')
  await writer.write([database.update(operations).set({ errorCode: 'cancelled' }).where(eq(operations.id, other))])
  expect(await answerOf(tell.cancel({ caller: ana, id: other }))).toBe('already-terminal')
})

test('a resend that a long wait has put off comes soon again once the answer is given', async () => {
  const { tell, submit, writer, database } = await open()
  const id = await submit()
  const farMs = Date.now() + 30 * 24 * 60 * 60 * 1000
  await writer.write([database.update(operations).set({ resendAt: farMs }).where(eq(operations.id, id))])
  await tell.signal(approve(id, operator))
  const [row] = await database.select().from(operations).where(eq(operations.id, id))
  expect(row?.resendAt).toBeLessThanOrEqual(Date.now() + RESEND_AFTER_MS)
  // Not at once: the answer itself is on its way.
  expect(row?.resendAt).toBeGreaterThan(Date.now())
})
