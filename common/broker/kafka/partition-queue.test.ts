import { describe, expect, test } from 'bun:test'
import { pino } from 'pino'
import type { Delivered } from '../../messages/message.ts'
import { topics } from '../../messages/topics.ts'
import { eventually } from '../broker.suite.ts'
import type { Batch, BatchHandler } from '../broker.ts'
import { createFeed } from './partition-queue.ts'

const MIB = 1024 * 1024

function scene(handle: BatchHandler, after?: Promise<void>) {
  const commits: number[] = []
  let rooms = 0
  const feed = createFeed({
    topic: topics.requests,
    partition: 0,
    handle,
    commit: async (offset) => {
      commits.push(offset)
    },
    onRoom: () => {
      rooms++
    },
    after,
    log: pino({ level: 'silent' }),
  })
  return { feed, commits, rooms: () => rooms }
}

function messages(from: number, count: number, bytes = 1): Delivered[] {
  return Array.from({ length: count }, (_, i) => ({
    topic: topics.requests,
    partition: 0,
    offset: from + i,
    key: null,
    value: new Uint8Array(bytes),
    headers: [],
    timestampMs: 0,
  }))
}

function offsets({ messages: batch }: Pick<Batch, 'messages'>): number[] {
  return batch.map(({ offset }) => offset)
}

/** A handler that the test lets end, one call after the other. */
function gated() {
  const calls: { batch: Batch; end: () => void; fail: (error: Error) => void }[] = []
  const handle: BatchHandler = (batch) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    calls.push({ batch, end: resolve, fail: reject })
    return promise
  }
  return { calls, handle }
}

describe('a feed', () => {
  test('goes on while a batch is in work, and delivers what came meanwhile next', async () => {
    const { calls, handle } = gated()
    const { feed, commits } = scene(handle)
    feed.offer(messages(5, 2), 9)
    await eventually(() => calls.length === 1, 'the handler runs')
    feed.offer(messages(7, 2), 9)
    expect(feed.lag()).toBe(4)
    calls[0]?.end()
    await eventually(() => calls.length === 2, 'the handler runs again')
    expect(calls.map(({ batch }) => offsets(batch))).toEqual([
      [5, 6],
      [7, 8],
    ])
    expect(feed.lag()).toBe(2)
    calls[1]?.end()
    await eventually(() => !feed.busy(), 'all is done')
    expect(commits).toEqual([7, 9])
    expect(feed.lag()).toBe(0)
  })

  test('skips nothing where an offset within a batch, or at its end, is committed while that batch is handled', async () => {
    const { calls, handle } = gated()
    const { feed } = scene(handle)
    feed.offer(messages(0, 2), 2)
    await eventually(() => calls.length === 1, 'the handler runs')
    feed.offer(messages(2, 3), 5)
    await calls[0]?.batch.commit(1)
    await calls[0]?.batch.commit(2)
    calls[0]?.end()
    await eventually(() => calls.length === 2, 'the handler runs again')
    expect(calls.map(({ batch }) => offsets(batch))).toEqual([
      [0, 1],
      [2, 3, 4],
    ])
    calls[1]?.end()
  })

  test('delivers anew from the held offset, not from the batch that failed', async () => {
    const seen: number[][] = []
    let fail = true
    const { feed } = scene(async (batch) => {
      seen.push(offsets(batch))
      if (seen.length === 1) return { heldFrom: 1 }
      if (fail) {
        fail = false
        throw new Error('A store is down.')
      }
    })
    feed.offer(messages(0, 3), 3)
    await eventually(() => seen.length === 1 && !feed.busy(), 'the first is held')
    feed.offer(messages(3, 1), 4)
    await eventually(() => seen.length === 3, 'it is delivered again')
    expect(seen).toEqual([[0, 1, 2], [3], [1, 2, 3]])
  })

  test('is troubled from a throw until the handler resolves', async () => {
    let fail = true
    const { feed } = scene(async () => {
      if (fail) throw new RangeError('A fault of the handler.')
    })
    feed.offer(messages(0, 1), 1)
    await eventually(() => feed.troubled(), 'it is troubled')
    fail = false
    await eventually(() => !feed.troubled(), 'it has recovered')
  })

  test('is full of what waits or is held, and says when there is room', async () => {
    const { calls, handle } = gated()
    const { feed, rooms } = scene(handle)
    feed.offer(messages(0, 9, MIB), 9)
    expect(feed.full()).toBe(true)
    await eventually(() => calls.length === 1, 'the handler runs')
    expect(calls[0]?.batch.messages).toHaveLength(1)
    calls[0]?.end()
    await eventually(() => calls.length === 2, 'the handler runs again')
    calls[1]?.end()
    await eventually(() => rooms() === 1, 'there is room')
    expect(feed.full()).toBe(false)
    void feed.abort()
    calls[2]?.end()
  })

  test('offsets that begin anew void what was known: a handler of before moves nothing', async () => {
    const { calls, handle } = gated()
    const { feed, commits } = scene(handle)
    feed.offer(messages(100, 1), 101)
    await eventually(() => calls.length === 1, 'the handler runs')
    feed.offer(messages(0, 1), 1)
    expect(calls[0]?.batch.signal.aborted).toBe(true)
    await calls[0]?.batch.commit(101)
    calls[0]?.end()
    await eventually(() => calls.length === 2, 'the new beginning is delivered')
    calls[1]?.end()
    await eventually(() => !feed.busy(), 'all is done')
    expect(offsets(calls[1]?.batch ?? { messages: [] })).toEqual([0])
    expect(commits).toEqual([1])
  })

  test('after stop the running handler may finish and commit, and no other begins', async () => {
    const { calls, handle } = gated()
    const { feed, commits } = scene(handle)
    feed.offer(messages(0, 501), 501)
    await eventually(() => calls.length === 1, 'the handler runs')
    const stopped = feed.stop()
    calls[0]?.end()
    await stopped
    expect(commits).toEqual([500])
    expect(calls).toHaveLength(1)
  })

  test('after abort nothing moves, however the handler ends', async () => {
    const { calls, handle } = gated()
    const { feed, commits } = scene(handle)
    feed.offer(messages(0, 2), 2)
    await eventually(() => calls.length === 1, 'the handler runs')
    const aborted = feed.abort()
    expect(calls[0]?.batch.signal.aborted).toBe(true)
    await calls[0]?.batch.commit(1)
    calls[0]?.end()
    await aborted
    expect(commits).toEqual([])
  })

  test('begins only after the handler of before has ended', async () => {
    const before = Promise.withResolvers<void>()
    const { calls, handle } = gated()
    const { feed } = scene(handle, before.promise)
    feed.offer(messages(0, 1), 1)
    await Promise.resolve()
    expect(calls).toHaveLength(0)
    before.resolve()
    await eventually(() => calls.length === 1, 'the handler runs')
    calls[0]?.end()
  })
})
