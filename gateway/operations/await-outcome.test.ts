import { afterEach, expect, test } from 'bun:test'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import type { Problem } from '@posta/common/service/problem.ts'
import { testApp } from '@posta/common/testing/app.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { eq } from 'drizzle-orm'
import { eventAdder } from '../database/events.ts'
import { operations } from '../database/schema.ts'
import { operationRoutes } from '../rest/operations.ts'
import { openTemporary } from '../testing/database.ts'
import { everyType, fixedSources, progressOf, submission } from '../testing/operations.ts'
import { createWaiters } from './await-outcome.ts'
import { keepProgress } from './keep-progress.ts'
import { createRead } from './read.ts'
import { createSubmit } from './submit.ts'
import { createTell } from './tell.ts'

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function open() {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  const submit = createSubmit({
    ...opened,
    sources: fixedSources,
    offered: everyType,
    onAccepted: () => {},
    deps: systemDeps,
  })
  const read = createRead(opened.database)
  const keep = opened.writer.bulk(keepProgress(systemDeps.now))
  return {
    database: opened.database,
    read,
    waiters: createWaiters({ database: opened.database, read, log: createLog('test', 'silent') }),
    tell: createTell({ ...opened, addEvent: eventAdder(systemDeps), onTold() {}, deps: systemDeps }),
    progress: (id: string, n: number) => keep(progressOf(id, n)),
    submit: () => submit({ user: 'ana', submission }),
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

test('the SSE stream shows the operation as it is, each progress, and then its outcome', async () => {
  const { waiters, submit, read, tell, progress, finish } = await open()
  const { id } = await submit()
  const app = operationRoutes({
    submit,
    tell,
    read,
    waiters,
    verify: async () => ({ user: 'ana', role: 'user' }),
    closing: never,
  })
  const { body } = await app.request(`/${id}/stream`, { headers: { Authorization: 'Bearer any' } })
  const seen: string[] = []
  for await (const chunk of body?.pipeThrough(new TextDecoderStream()) ?? []) {
    for (const [, data = ''] of chunk.matchAll(/^data: (.*)$/gm)) {
      const { status, progress: steps = [] } = JSON.parse(data)
      seen.push(`${status} ${steps.length}`)
      if (steps.length < 2) await progress(id, steps.length)
      else if (status === 'pending') await finish(id)
    }
  }
  expect(seen).toEqual(['pending 0', 'pending 1', 'pending 2', 'succeeded 2'])
})

test('the stream of an operation that is not the caller’s is a problem, also for a HEAD', async () => {
  const { waiters, submit, read, tell } = await open()
  const { id } = await submit()
  const verify = async (user: string) => ({ user, role: 'user' }) as const
  const app = testApp().route('/', operationRoutes({ submit, tell, read, waiters, verify, closing: never }))
  const statuses = ['GET', 'HEAD'].map(async (method) => {
    const { status } = await app.request(`/${id}/stream`, { method, headers: { Authorization: 'Bearer bob' } })
    return status
  })
  expect(await Promise.all(statuses)).toEqual([404, 404])
})

test('a watcher gets each progress, whether this gateway or another received it; what comes before they look is one change', async () => {
  const { waiters, submit, progress, finish } = await open()
  const { id } = await submit()
  const changes = waiters.changes('ana', id, never)
  const next = async () => {
    const { value } = await changes.next()
    return value && `${value.status} ${value.progress?.map(({ step }) => step).join() ?? ''}`
  }
  expect(await next()).toBe('pending ')
  const second = next()
  await progress(id, 0)
  expect(await second).toBe('pending step-0')

  // Here, and before the watcher asks.
  await progress(id, 2)
  await progress(id, 1)
  waiters.wakeWatchers([id])
  expect(await next()).toBe('pending step-0,step-1,step-2')

  await progress(id, 3)
  await finish(id)
  expect(await next()).toBe('succeeded step-0,step-1,step-2,step-3')
  expect((await changes.next()).done).toBe(true)
})

test('watchers of this gateway need no poll', async () => {
  const { read, submit, progress } = await open()
  const waiters = createWaiters({ database: { all: async () => [] }, read, log: createLog('test', 'silent') })
  const { id } = await submit()
  const changes = waiters.changes('ana', id, never)
  await changes.next()
  const next = changes.next()
  await progress(id, 0)
  waiters.wakeWatchers([id])
  expect((await next).value).toMatchObject({ progress: [{ step: 'step-0' }] })
  await changes.return()
})

test('progress that is told again is no change', async () => {
  const { waiters, submit, progress, finish } = await open()
  const { id } = await submit()
  await progress(id, 0)
  const changes = waiters.changes('ana', id, never)
  await changes.next()
  const next = changes.next()
  await progress(id, 0)
  waiters.wakeWatchers([id])
  await finish(id)
  expect((await next).value).toMatchObject({ status: 'succeeded' })
})

test('progress does not end a wait for the outcome', async () => {
  const { waiters, submit, progress, finish } = await open()
  const { id } = await submit()
  let ended = false
  const result = waiters.awaitOutcome('ana', id, never).finally(() => {
    ended = true
  })
  // A watcher of the same operation, woken by the poll: the wait had its chance too.
  const changes = waiters.changes('ana', id, never)
  await changes.next()
  const next = changes.next()
  await progress(id, 0)
  expect((await next).value).toMatchObject({ progress: [{ step: 'step-0' }] })
  expect(ended).toBe(false)
  await finish(id)
  expect(await result).toMatchObject({ status: 'succeeded', progress: [{ step: 'step-0' }] })
  await changes.return()
})

test('a watch ends when it is aborted', async () => {
  const { waiters, submit } = await open()
  const { id } = await submit()
  const aborted = new AbortController()
  const changes = waiters.changes('ana', id, aborted.signal)
  await changes.next()
  const next = changes.next()
  aborted.abort()
  expect((await next).done).toBe(true)
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
  await expect(waiters.awaitOutcome('ana', id, never)).rejects.toMatchObject({
    message: 'You wait for too many operations at once.',
    retryAfterS: 1,
  })
  ended.abort()
  await Promise.all(results)
  expect(await refused()).toBe('let in')
})

/** Waiters over operations that stay as they are: no poll ever finds that one has changed. */
function unchanging(status: 'pending' | 'succeeded', onPoll = () => {}) {
  const operation = { id: 'op', type: sample.type, status, input: submission.input, createdAt: '' }
  const read = {
    one: async () => operation,
    observe: async () => ({ operation, progressBytes: 0 }),
    page: async () => ({ items: [operation] }),
  }
  const all = async () => {
    onPoll()
    return []
  }
  return createWaiters({ database: { all }, read, log: createLog('test', 'silent') })
}

test('a wait for a terminal operation needs no poll', async () => {
  expect((await unchanging('succeeded').awaitOutcome('ana', 'op', never)).status).toBe('succeeded')
})

test('at most 10,000 wait in a process, whoever they are; those that leave make room', async () => {
  const waiters = unchanging('pending')
  const closing = new AbortController()
  const waiting = Array.from({ length: 10_000 }, (_, n) =>
    waiters.awaitOutcome(`user-${n % 100}`, `op-${n}`, closing.signal),
  )
  const one = () => waiters.awaitOutcome('ana', 'op', AbortSignal.abort())
  const refused = await one().catch((error: unknown) => error)
  closing.abort()
  await Promise.all(waiting)
  expect(refused).toMatchObject({ code: 'overloaded', retryAfterS: 1 })
  expect((await one()).status).toBe('pending')
})

test('a watch that is refused says why before it shows anything, and takes no place', async () => {
  const { waiters, submit } = await open()
  const { id } = await submit()
  const ended = new AbortController()
  const first = (user: string, operation: string) =>
    waiters
      .changes(user, operation, ended.signal)
      .next()
      .then(
        ({ value }) => value?.status,
        (error: Problem) => error.code,
      )
  for (let tries = 0; tries < 201; tries++) expect(await first('bob', id)).toBe('not-found')
  const watches = Array.from({ length: 200 }, () => waiters.changes('ana', id, ended.signal))
  expect(new Set((await Promise.all(watches.map((watch) => watch.next()))).map(({ value }) => value?.status))).toEqual(
    new Set(['pending']),
  )
  expect(await first('ana', id)).toBe('too-many-requests')
  await watches[0]?.return()
  expect(await first('ana', id)).toBe('pending')
  await Promise.all(watches.map((watch) => watch.return()))
})

test('of two watchers, one that looked before a progress and one that looked after it, both are shown it', async () => {
  const { database, read, submit, progress } = await open()
  const { id } = await submit()
  const before = await read.observe('ana', id)
  await progress(id, 1)
  let looks = 0
  const waiters = createWaiters({
    database,
    read: { ...read, observe: async (...asked) => (looks++ === 0 ? before : read.observe(...asked)) },
    log: createLog('test', 'silent'),
  })
  const ended = new AbortController()
  const watch = () => waiters.changes('ana', id, ended.signal)
  const [earlier, later] = [watch(), watch()]
  expect((await earlier.next()).value).not.toHaveProperty('progress')
  const shown = { progress: [{ step: 'step-1' }] }
  expect((await later.next()).value).toMatchObject(shown)
  expect((await earlier.next()).value).toMatchObject(shown)
  ended.abort()
  expect((await Promise.all([earlier.next(), later.next()])).map(({ done }) => done)).toEqual([true, true])
})

test('the database is polled only while someone waits', async () => {
  let [polls, ticks] = [0, 0]
  const ended = new AbortController()
  // Others go on waiting in another process: their polls tell that time passes.
  const ticking = unchanging('pending', () => ticks++).awaitOutcome('ana', 'op', ended.signal)
  const waiters = unchanging('pending', () => polls++)
  const left = new AbortController()
  const waiting = waiters.awaitOutcome('ana', 'op', left.signal)
  await eventually(() => polls > 1)
  left.abort()
  await waiting
  const [pollsThen, ticksThen] = [polls, ticks]
  await eventually(() => ticks > ticksThen + 3)
  expect(polls).toBeLessThanOrEqual(pollsThen + 1)
  ended.abort()
  await ticking
})
