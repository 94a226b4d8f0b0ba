import { afterEach, expect, test } from 'bun:test'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import type { Problem } from '@posta/common/service/problem.ts'
import { eq } from 'drizzle-orm'
import { operations } from '../database/schema.ts'
import { operationRoutes } from '../rest/operations.ts'
import { openTemporary } from '../testing/database.ts'
import { conversion, fixedRates } from '../testing/operations.ts'
import { createWaiters } from './await-outcome.ts'
import { createRead } from './read.ts'
import { createSubmit } from './submit.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function open() {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  const submit = createSubmit({ ...opened, rates: fixedRates, onAccepted: () => {}, deps: systemDeps })
  const read = createRead(opened.database)
  return {
    read,
    waiters: createWaiters({ database: opened.database, read, log: createLog('test', 'silent') }),
    submit: () => submit({ user: 'ana', submission: conversion }),
    finish: (id: string) =>
      opened.writer.write([
        opened.database.update(operations).set({ status: 'succeeded', output: {} }).where(eq(operations.id, id)),
      ]),
  }
}

const never = new AbortController().signal

test('a wait ends with a result that another gateway received', async () => {
  const { waiters, submit, finish } = await open()
  const { id } = await submit()
  const result = waiters.awaitOutcome('ana', id, never)
  await finish(id)
  expect((await result).status).toBe('succeeded')
})

test('a wait for a terminal operation ends at once; a wait that is aborted answers with the operation as it is', async () => {
  const { waiters, submit, finish } = await open()
  const [done, pending] = [await submit(), await submit()]
  await finish(done.id)
  expect((await waiters.awaitOutcome('ana', done.id, never)).status).toBe('succeeded')
  const aborted = new AbortController()
  const result = waiters.awaitOutcome('ana', pending.id, aborted.signal)
  aborted.abort()
  expect((await result).status).toBe('pending')
})

test('a watcher gets the operation as it is, pending, and then its outcome', async () => {
  const { waiters, submit, finish } = await open()
  const { id } = await submit()
  const changes = waiters.changes('ana', id, never)
  expect((await changes.next()).value).toMatchObject({ id, status: 'pending' })
  await finish(id)
  expect((await changes.next()).value).toMatchObject({ id, status: 'succeeded' })
  expect((await changes.next()).done).toBe(true)
})

test('the SSE stream shows the operation as it is, pending, and then its outcome', async () => {
  const { waiters, submit, read, finish } = await open()
  const { id } = await submit()
  const app = operationRoutes({
    submit,
    read,
    waiters,
    verify: async () => ({ user: 'ana', role: 'user' }),
    closing: never,
  })
  const { body } = await app.request(`/${id}/stream`, { headers: { Authorization: 'Bearer any' } })
  const seen: string[] = []
  for await (const chunk of body?.pipeThrough(new TextDecoderStream()) ?? []) {
    seen.push(...[...chunk.matchAll(/"status":"(\w+)"/g)].map(([, status = '']) => status))
    if (seen.at(-1) === 'pending') await finish(id)
  }
  expect(seen).toEqual(['pending', 'succeeded'])
})

test('nobody can wait for another’s operation', async () => {
  const { waiters, submit } = await open()
  const { id } = await submit()
  const code = waiters.awaitOutcome('bob', id, never).catch((error: Problem) => error.code)
  expect(await code).toBe('not-found')
})

test('a user has at most 200 waits at once; one that ends makes room', async () => {
  const { waiters, submit } = await open()
  const { id } = await submit()
  const ended = new AbortController()
  const results = Array.from({ length: 200 }, () => waiters.awaitOutcome('ana', id, ended.signal))
  const refused = () =>
    waiters.awaitOutcome('ana', id, AbortSignal.abort()).then(
      () => 'let in',
      (error: Problem) => error.code,
    )
  expect(await refused()).toBe('too-many-requests')
  ended.abort()
  await Promise.all(results)
  expect(await refused()).toBe('let in')
})
