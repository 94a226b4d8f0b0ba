import { afterEach, expect, test } from 'bun:test'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import type { Problem } from '@posta/common/service/problem.ts'
import { eq } from 'drizzle-orm'
import { operations } from '../database/schema.ts'
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
  const waiters = createWaiters({
    database: opened.database,
    read: createRead(opened.database),
    log: createLog('test', 'silent'),
  })
  return {
    waiters,
    submit: () => submit({ user: 'ana', submission: conversion }),
    finish: (id: string) =>
      opened.writer.write([
        opened.database.update(operations).set({ status: 'succeeded', output: {} }).where(eq(operations.id, id)),
      ]),
  }
}

const never = new AbortController().signal

test('a wait ends with the result that another gateway received, which nobody here was told of', async () => {
  const { waiters, submit, finish } = await open()
  const { id } = await submit()
  const result = waiters.awaitOutcome('ana', id, never)
  await finish(id)
  expect((await result).status).toBe('succeeded')
})

test('a wait for what is terminal already ends at once, and one that is given up answers with what is', async () => {
  const { waiters, submit, finish } = await open()
  const [done, pending] = [await submit(), await submit()]
  await finish(done.id)
  expect((await waiters.awaitOutcome('ana', done.id, never)).status).toBe('succeeded')
  const givenUp = new AbortController()
  const result = waiters.awaitOutcome('ana', pending.id, givenUp.signal)
  givenUp.abort()
  expect((await result).status).toBe('pending')
})

test('nobody can wait for another’s operation', async () => {
  const { waiters, submit } = await open()
  const { id } = await submit()
  const code = waiters.awaitOutcome('bob', id, never).catch((error: Problem) => error.code)
  expect(await code).toBe('not-found')
})

test('a user can wait for so many at once and no more; who stops waiters makes room', async () => {
  const { waiters, submit } = await open()
  const { id } = await submit()
  const givenUp = new AbortController()
  const results = Array.from({ length: 200 }, () => waiters.awaitOutcome('ana', id, givenUp.signal))
  const refused = () =>
    waiters.awaitOutcome('ana', id, AbortSignal.abort()).then(
      () => 'let in',
      (error: Problem) => error.code,
    )
  expect(await refused()).toBe('too-many-requests')
  givenUp.abort()
  await Promise.all(results)
  expect(await refused()).toBe('let in')
})
