import { afterEach, describe, expect, test } from 'bun:test'
import { systemDeps } from '@posta/common/service/deps.ts'
import { eq } from 'drizzle-orm'
import { operations } from '../database/schema.ts'
import { openTemporary } from '../testing/database.ts'
import { everyType, fixedSources, progressOf, submission } from '../testing/operations.ts'
import { keepProgress, type Progress } from './keep-progress.ts'
import type { OperationRow } from './operation.ts'
import { createRead } from './read.ts'
import { createSubmit } from './submit.ts'

const cleanups: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

const MINUTE_MS = 60_000
const nowMs = Date.UTC(2026, 10, 23)
const iso = (ms: number) => new Date(ms).toISOString()

async function open() {
  const opened = await openTemporary()
  cleanups.push(opened.close)
  const { database, writer } = opened
  const deps = { newId: systemDeps.newId, now: () => nowMs }
  const submit = createSubmit({ ...opened, sources: fixedSources, offered: everyType, onAccepted() {}, deps })
  const keep = writer.bulk(keepProgress(deps.now))
  return {
    ...opened,
    keep,
    submit: async () => (await submit({ user: 'ana', submission })).id,
    set: (id: string, values: Partial<OperationRow>) =>
      writer.write([database.update(operations).set(values).where(eq(operations.id, id))]),
    async row(id: string): Promise<OperationRow> {
      const [row] = await database.select().from(operations).where(eq(operations.id, id))
      if (!row) throw new Error('There is no such operation.')
      return row
    },
    shown: async (id: string) => (await createRead(database).one('ana', id)).progress,
  }
}

test('progress is shown in the order of its numbers, in whatever order and however often it comes', async () => {
  const { submit, keep, shown } = await open()
  const id = await submit()
  expect(await shown(id)).toBeUndefined()
  for (const n of [10, 2, 10, 0]) await keep(progressOf(id, n))
  await Promise.all([7, 1, 7].map((n) => keep(progressOf(id, n, { status: 'undone' }))))
  expect(await shown(id)).toEqual(
    [0, 1, 2, 7, 10].map((n) => ({
      step: `step-${n}`,
      status: n === 1 || n === 7 ? 'undone' : 'done',
      at: '2026-11-23T12:00:00.000Z',
    })),
  )
})

test('the progress of several operations in one transaction comes to the right ones', async () => {
  const { submit, keep, shown } = await open()
  const [one, other] = [await submit(), await submit()]
  await Promise.all([keep(progressOf(one, 0)), keep(progressOf(other, 4)), keep(progressOf(one, 1))])
  expect((await shown(one))?.map(({ step }) => step)).toEqual(['step-0', 'step-1'])
  expect((await shown(other))?.map(({ step }) => step)).toEqual(['step-4'])
})

test('progress after the end is kept and changes nothing else', async () => {
  const { submit, keep, set, row } = await open()
  const id = await submit()
  await set(id, { status: 'failed', errorCode: 'limit-exceeded', completedAt: 5, resendAt: null })
  const before = await row(id)
  await keep(progressOf(id, 3, { status: 'waiting', until: iso(nowMs + MINUTE_MS) }))
  expect(await row(id)).toEqual({ ...before, progress: { 3: expect.objectContaining({ step: 'step-3' }) } })
})

test('progress of no operation, or of one of another user, is unknown, and keeps no other out', async () => {
  const { submit, keep, shown } = await open()
  const id = await submit()
  expect(await keep(progressOf(id, 0, { user: 'eve' }))).toBe('unknown')
  expect(await shown(id)).toBeUndefined()
  const outcomes = [progressOf('none', 0), progressOf(id, 0, { user: 'eve' }), progressOf(id, 1)].map(keep)
  expect(await Promise.all(outcomes)).toEqual(['unknown', 'unknown', 'kept'])
  expect((await shown(id))?.map(({ step }) => step)).toEqual(['step-1'])
})

test('an operation waits for an answer while that is the last of its progress by number', async () => {
  const { submit, keep, row } = await open()
  const id = await submit()
  const told: [Partial<Progress> & { n: number }, boolean][] = [
    [{ n: 0, status: 'waiting' }, false],
    [{ n: 9, status: 'waiting', forSignal: true }, true],
    [{ n: 2, status: 'done' }, true],
    [{ n: 10, status: 'done' }, false],
    [{ n: 9, status: 'waiting', forSignal: true }, false],
    // Only a wait is for an answer, whatever else a message says.
    [{ n: 11, status: 'done', forSignal: true }, false],
  ]
  for (const [{ n, ...given }, waiting] of told) {
    await keep(progressOf(id, n, given))
    expect([n, (await row(id)).waiting]).toEqual([n, waiting])
  }
})

describe('a request is sent again', () => {
  test.each<[string, Partial<Progress>, number]>([
    ['two minutes after a step', { status: 'done' }, 2],
    ['two minutes after a step, though that names a time', { status: 'done', until: iso(nowMs + 90 * MINUTE_MS) }, 2],
    ['two minutes after the end of a wait', { status: 'waiting', until: iso(nowMs + 90 * MINUTE_MS) }, 92],
    ['two minutes after the beginning of a wait without an end', { status: 'waiting', forSignal: true }, 2],
  ])('%s', async (_, given, minutes) => {
    const { submit, set, keep, row } = await open()
    const id = await submit()
    await set(id, { resendAt: 0 })
    await keep(progressOf(id, 0, given))
    expect((await row(id)).resendAt).toBe(nowMs + minutes * MINUTE_MS)
  })

  test('after twice as long for each time that it was sent again, and within 69 hours', async () => {
    const { submit, set, keep, row } = await open()
    const id = await submit()
    for (const [resends, minutes] of [
      [3, 16],
      [40, 2 * 2 ** 11],
    ] as const) {
      await set(id, { resends, resendAt: 0 })
      await keep(progressOf(id, 0))
      expect((await row(id)).resendAt).toBe(nowMs + minutes * MINUTE_MS)
    }
  })

  test('two minutes after the end of a wait, however often it was sent again before', async () => {
    const { submit, set, keep, row } = await open()
    const id = await submit()
    await set(id, { resends: 11, resendAt: 0 })
    await keep(progressOf(id, 0, { status: 'waiting', until: iso(nowMs + 90 * MINUTE_MS) }))
    expect((await row(id)).resendAt).toBe(nowMs + 92 * MINUTE_MS)
  })

  test('never sooner because of progress', async () => {
    const { submit, keep, row } = await open()
    const id = await submit()
    await keep(progressOf(id, 0, { status: 'waiting', until: iso(nowMs + 90 * MINUTE_MS) }))
    await keep(progressOf(id, 1))
    await keep(progressOf(id, 2, { status: 'waiting', until: iso(nowMs - MINUTE_MS) }))
    expect((await row(id)).resendAt).toBe(nowMs + 92 * MINUTE_MS)
  })
})
