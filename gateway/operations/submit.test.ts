import { afterEach, expect, test } from 'bun:test'
import { systemDeps } from '@posta/common/service/deps.ts'
import { Problem } from '@posta/common/service/problem.ts'
import { continueTrace, traceparent, withTrace } from '@posta/common/service/trace.ts'
import { sample, stepped } from '@posta/common/testing/sample.ts'
import { and, asc, eq } from 'drizzle-orm'
import { operations, outbox } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { answering, everyType, fixedSources } from '../testing/operations.ts'
import { createSubmit, MAX_PENDING_PER_USER } from './submit.ts'

const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const submissionOf = (n = 1) => ({ type: sample.type, input: sample.input(n) })
const facts = { learned: 'something' }

async function open() {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  let prepared = 0
  const prepare = async () => {
    prepared += 1
    return facts
  }
  const parts = {
    ...opened,
    sources: fixedSources,
    preparers: { [sample.type]: prepare, [stepped.type]: prepare },
    contracts: { ...answering, [stepped.type]: { ...answering[stepped.type], signals: {} } },
    offered: everyType,
    onAccepted: () => {},
    deps: systemDeps,
  }
  const submit = createSubmit(parts)
  return {
    ...opened,
    parts,
    prepared: () => prepared,
    /** The operation's id, or the code of the problem. */
    submit: (submission: unknown, user = 'ana', idempotencyKey?: string) =>
      submit({ user, submission, idempotencyKey }).then(
        ({ id }) => id,
        (error: unknown) => {
          if (error instanceof Problem) return error.code
          throw error
        },
      ),
  }
}

test('a user has at most 100 operations pending, however many they submit at once, and other users are not affected', async () => {
  const { submit } = await open()
  const many = await Promise.all(Array.from({ length: 3 * MAX_PENDING_PER_USER }, () => submit(submissionOf())))
  expect(many.filter((answer) => answer === 'too-many-pending')).toHaveLength(2 * MAX_PENDING_PER_USER)
  expect(await submit(submissionOf(), 'bob')).not.toBe('too-many-pending')
})

test('operations that wait for an answer count apart: 100 others may be pending beside them', async () => {
  const { submit, database, writer } = await open()
  const many = (count: number) => Promise.all(Array.from({ length: count }, () => submit(submissionOf())))
  const refused = (answers: string[]) => answers.filter((answer) => answer === 'too-many-pending').length
  await many(MAX_PENDING_PER_USER)
  await writer.write([database.update(operations).set({ waiting: true })])
  expect(refused(await many(2 * MAX_PENDING_PER_USER))).toBe(MAX_PENDING_PER_USER)
  // Those that have ended count nowhere, whatever their last progress was.
  await writer.write([database.update(operations).set({ status: 'failed', waiting: true })])
  expect(refused(await many(MAX_PENDING_PER_USER + 1))).toBe(1)
})

test('at most 1,000 operations of a user come to wait for an answer; those that never wait are still accepted', async () => {
  const { submit, database, writer } = await open()
  const other = { type: stepped.type, input: stepped.input() }
  const many = (count: number) => Promise.all(Array.from({ length: count }, () => submit(submissionOf())))
  const accepted = (answers: string[]) => answers.filter((answer) => answer !== 'too-many-pending').length
  const waits = () => writer.write([database.update(operations).set({ waiting: true })])
  for (let round = 0; round < 9; round++) {
    expect(accepted(await many(100))).toBe(100)
    await waits()
  }
  expect(accepted(await many(99))).toBe(99)
  await waits()
  // There is room for one more, however many ask at once.
  expect(accepted(await many(5))).toBe(1)
  await waits()
  expect(await submit(submissionOf())).toBe('too-many-pending')
  expect(await submit(other)).not.toBe('too-many-pending')
  expect(await submit(submissionOf(), 'bob')).not.toBe('too-many-pending')
  expect(await database.$count(operations, and(eq(operations.userId, 'ana'), eq(operations.waiting, true)))).toBe(1000)
})

test('a type that is not offered is refused before anything is prepared; a key of an earlier one is still answered', async () => {
  const { submit, parts, prepared, database } = await open()
  const first = await submit(submissionOf(), 'ana', 'k')
  const closed = createSubmit({
    ...parts,
    offered: new Set([stepped.type]),
    contracts: { ...answering, [sample.type]: { ...answering[sample.type], requires: 'OUTSIDE_URL' } },
  })
  const submission = submissionOf()
  await expect(closed({ user: 'ana', submission })).rejects.toMatchObject({
    code: 'invalid-input',
    errors: [{ pointer: '#/type', detail: `${sample.type} is not offered here: OUTSIDE_URL is not set` }],
  })
  expect(await closed({ user: 'ana', submission, idempotencyKey: 'k' })).toMatchObject({ id: first })
  expect(prepared()).toBe(1)
  expect(await database.$count(operations)).toBe(1)
  const offered = { type: stepped.type, input: stepped.input() }
  expect(await closed({ user: 'ana', submission: offered })).toMatchObject({ status: 'pending' })
})

test('one key submitted many times at once makes one operation and one request', async () => {
  const { submit, database } = await open()
  const answers = await Promise.all(Array.from({ length: 20 }, () => submit(submissionOf(), 'ana', 'key-1')))
  expect(new Set(answers).size).toBe(1)
  expect(await database.select().from(outbox)).toHaveLength(1)
})

test('of two different inputs submitted at once with one key, one is accepted and the other refused', async () => {
  const { submit, database } = await open()
  const answers = await Promise.all([submit(submissionOf(1), 'ana', 'k'), submit(submissionOf(2), 'ana', 'k')])
  expect(answers.filter((answer) => answer === 'idempotency-key-reused')).toHaveLength(1)
  expect(await database.select().from(operations)).toHaveLength(1)
})

test('two users may use the same key; an input that differs only in case and order is the same input', async () => {
  const { submit } = await open()
  const first = await submit(submissionOf(), 'ana', 'k')
  expect(await submit(submissionOf(), 'bob', 'k')).not.toBe(first)
  expect(await submit({ type: sample.type, input: sample.sameInput }, 'ana', 'k')).toBe(first)
})

test('for a key that was used before nothing is prepared', async () => {
  const { submit, prepared } = await open()
  await submit(submissionOf(), 'ana', 'k')
  await submit(submissionOf(), 'ana', 'k')
  await submit(submissionOf(2), 'ana', 'k')
  expect(prepared()).toBe(1)
})

test('an operation is stored with its facts; the outbox has the order of acceptance', async () => {
  const { submit, database } = await open()
  const ids = await Promise.all([1, 2, 3].map((n) => submit(submissionOf(n))))
  const rows = await database.select().from(outbox).orderBy(asc(outbox.id))
  expect(rows.map(({ operationId }) => operationId)).toEqual(ids)
  const [row] = await database.select().from(operations)
  expect(row?.facts).toEqual(facts)
})

test('a refused submission stores nothing and uses no key up', async () => {
  const { submit, parts, database } = await open()
  const refuse = () => Promise.reject(new Problem('unavailable'))
  const refusing = createSubmit({ ...parts, preparers: { [sample.type]: refuse } })
  const submission = submissionOf()
  await expect(refusing({ user: 'ana', submission, idempotencyKey: 'k' })).rejects.toMatchObject({
    code: 'unavailable',
  })
  expect(await submit({ type: sample.type, input: sample.wrong.input }, 'ana', 'k')).toBe('invalid-input')
  expect(await database.select().from(operations)).toEqual([])
  expect(await submit(submission, 'ana', 'k')).toMatch(/^[\w-]{36}$/)
})

test('an idempotency key has 1 to 255 visible ASCII characters; any other is refused', async () => {
  const { submit, database } = await open()
  for (const key of ['', 'x'.repeat(256), 'a key', ' key', 'key ', 'clé', 'key\n'])
    expect([key, await submit(submissionOf(), 'ana', key)]).toEqual([key, 'malformed-request'])
  expect(await database.select().from(operations)).toEqual([])
  for (const key of ['!', '~'.repeat(255)]) expect(await submit(submissionOf(), 'ana', key)).toMatch(/^[\w-]{36}$/)
})

test('an operation whose message would be too large is refused, and stores nothing', async () => {
  const { parts, database } = await open()
  const many = Array.from({ length: 10_000 }, () => 'something that was learned')
  const submit = createSubmit({ ...parts, preparers: { [sample.type]: async () => ({ many }) } })
  const submission = submissionOf()
  await expect(submit({ user: 'ana', submission })).rejects.toMatchObject({ code: 'payload-too-large' })
  expect(await database.select().from(operations)).toEqual([])
  expect(await database.select().from(outbox)).toEqual([])
})

test('each refusal says in words what is wrong, and when to try again', async () => {
  const { parts, database, writer } = await open()
  const submit = createSubmit({ ...parts, maxOutboxRows: MAX_PENDING_PER_USER })
  const asked = { user: 'ana', submission: submissionOf(), idempotencyKey: 'k' }
  await expect(submit({ ...asked, idempotencyKey: '' })).rejects.toThrow(
    'The idempotency key must have 1 to 255 visible ASCII characters.',
  )
  await submit(asked)
  await expect(submit({ ...asked, submission: submissionOf(2) })).rejects.toThrow(
    'This idempotency key belongs to an operation with another type or input.',
  )
  await Promise.all(
    Array.from({ length: MAX_PENDING_PER_USER - 1 }, () => submit({ ...asked, idempotencyKey: undefined })),
  )
  const refused = () => submit({ user: 'ana', submission: submissionOf() })
  await expect(refused()).rejects.toMatchObject({ message: 'Too many operations wait to be sent.', retryAfterS: 10 })
  await writer.write([database.delete(outbox)])
  await expect(refused()).rejects.toMatchObject({
    message:
      'You have too many operations pending: at most 100, and 1000 that wait for an answer. Wait until some are done.',
    retryAfterS: 1,
  })
})

test('an operation is answered as it was accepted, and stored with its key, the trace and when it is sent again', async () => {
  const { parts, database } = await open()
  const accepted: string[] = []
  const nowMs = Date.UTC(2026, 10, 23, 12)
  const deps = { newId: () => 'op-1', now: () => nowMs }
  const submit = createSubmit({ ...parts, deps, onAccepted: (type) => accepted.push(type) })
  const trace = continueTrace(undefined)
  const asked = { user: 'ana', submission: submissionOf(), idempotencyKey: 'k' }
  const operation = await withTrace(trace, () => submit(asked))
  const { input } = submissionOf()
  expect(operation).toStrictEqual({
    id: 'op-1',
    type: sample.type,
    status: 'pending',
    input,
    createdAt: '2026-11-23T12:00:00.000Z',
  })
  expect(await database.select().from(operations)).toMatchObject([
    {
      ...{ id: 'op-1', userId: 'ana', type: sample.type, input, idempotencyKey: 'k', createdAt: nowMs },
      ...{ traceparent: traceparent(trace), resendAt: nowMs + 120_000, status: 'pending' },
    },
  ])
  expect(await submit(asked)).toEqual(operation)
  expect(accepted).toEqual([sample.type])
})
