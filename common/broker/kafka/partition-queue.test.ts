import { describe, expect, test } from 'bun:test'
import { pino } from 'pino'
import type { Delivered } from '../../messages/message.ts'
import { topics } from '../../messages/topics.ts'
import { eventually } from '../broker.suite.ts'
import type { Batch, BatchHandler } from '../broker.ts'
import { createPartitionQueue } from './partition-queue.ts'

const MIB = 1024 * 1024

function scene(handle: BatchHandler, after?: Promise<void>) {
  const commits: number[] = []
  let rooms = 0
  const queue = createPartitionQueue({
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
  return { queue, commits, rooms: () => rooms }
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

/** A handler of which the test ends each call. */
function gated() {
  const calls: { batch: Batch; end: () => void; fail: (error: Error) => void }[] = []
  const handle: BatchHandler = (batch) => {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    calls.push({ batch, end: resolve, fail: reject })
    return promise
  }
  return { calls, handle }
}

describe('the queue of a partition', () => {
  test('takes messages while a batch is handled, and delivers them next', async () => {
    const { calls, handle } = gated()
    const { queue, commits } = scene(handle)
    queue.add(messages(5, 2), 9)
    await eventually(() => calls.length === 1, 'the handler runs')
    queue.add(messages(7, 2), 9)
    expect(queue.lag()).toBe(4)
    calls[0]?.end()
    await eventually(() => calls.length === 2, 'the handler runs again')
    expect(calls.map(({ batch }) => offsets(batch))).toEqual([
      [5, 6],
      [7, 8],
    ])
    expect(queue.lag()).toBe(2)
    calls[1]?.end()
    await eventually(() => !queue.isBusy(), 'all is done')
    expect(commits).toEqual([7, 9])
    expect(queue.lag()).toBe(0)
  })

  test('skips nothing where an offset within a batch, or at its end, is committed while that batch is handled', async () => {
    const { calls, handle } = gated()
    const { queue } = scene(handle)
    queue.add(messages(0, 2), 2)
    await eventually(() => calls.length === 1, 'the handler runs')
    queue.add(messages(2, 3), 5)
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

  test('after a throw delivers again from the held offset, not only the batch that failed', async () => {
    const seen: number[][] = []
    let fail = true
    const { queue } = scene(async (batch) => {
      seen.push(offsets(batch))
      if (seen.length === 1) return { heldFrom: 1 }
      if (fail) {
        fail = false
        throw new Error('A store is down.')
      }
    })
    queue.add(messages(0, 3), 3)
    await eventually(() => seen.length === 1 && !queue.isBusy(), 'the first is held')
    queue.add(messages(3, 1), 4)
    await eventually(() => seen.length === 3, 'it is delivered again')
    expect(seen).toEqual([[0, 1, 2], [3], [1, 2, 3]])
  })

  test('is failing from a throw until the handler resolves', async () => {
    let fail = true
    const { queue } = scene(async () => {
      if (fail) throw new RangeError('The handler has a bug.')
    })
    queue.add(messages(0, 1), 1)
    await eventually(() => queue.isFailing(), 'it is failing')
    fail = false
    await eventually(() => !queue.isFailing(), 'it has recovered')
  })

  test('is full while 8 MiB are not committed, and then says that there is room', async () => {
    const { calls, handle } = gated()
    const { queue, rooms } = scene(handle)
    queue.add(messages(0, 9, MIB), 9)
    expect(queue.isFull()).toBe(true)
    await eventually(() => calls.length === 1, 'the handler runs')
    expect(calls[0]?.batch.messages).toHaveLength(1)
    calls[0]?.end()
    await eventually(() => calls.length === 2, 'the handler runs again')
    calls[1]?.end()
    await eventually(() => rooms() === 1, 'there is room')
    expect(queue.isFull()).toBe(false)
    void queue.abort()
    calls[2]?.end()
  })

  test('when offsets start again at a lower one, the handler of the old messages commits nothing', async () => {
    const { calls, handle } = gated()
    const { queue, commits } = scene(handle)
    queue.add(messages(100, 1), 101)
    await eventually(() => calls.length === 1, 'the handler runs')
    queue.add(messages(0, 1), 1)
    expect(calls[0]?.batch.signal.aborted).toBe(true)
    await calls[0]?.batch.commit(101)
    calls[0]?.end()
    await eventually(() => calls.length === 2, 'the new message is delivered')
    calls[1]?.end()
    await eventually(() => !queue.isBusy(), 'all is done')
    expect(offsets(calls[1]?.batch ?? { messages: [] })).toEqual([0])
    expect(commits).toEqual([1])
  })

  test('after stop the running handler may finish and commit, and is not called again', async () => {
    const { calls, handle } = gated()
    const { queue, commits } = scene(handle)
    queue.add(messages(0, 501), 501)
    await eventually(() => calls.length === 1, 'the handler runs')
    const stopped = queue.stop()
    calls[0]?.end()
    await stopped
    expect(commits).toEqual([500])
    expect(calls).toHaveLength(1)
  })

  test('after abort nothing is committed, however the handler ends', async () => {
    const { calls, handle } = gated()
    const { queue, commits } = scene(handle)
    queue.add(messages(0, 2), 2)
    await eventually(() => calls.length === 1, 'the handler runs')
    const aborted = queue.abort()
    expect(calls[0]?.batch.signal.aborted).toBe(true)
    await calls[0]?.batch.commit(1)
    calls[0]?.end()
    await aborted
    expect(commits).toEqual([])
  })

  test('calls the handler only after the one of an earlier assignment has ended', async () => {
    const before = Promise.withResolvers<void>()
    const { calls, handle } = gated()
    const { queue } = scene(handle, before.promise)
    queue.add(messages(0, 1), 1)
    await Promise.resolve()
    expect(calls).toHaveLength(0)
    before.resolve()
    await eventually(() => calls.length === 1, 'the handler runs')
    calls[0]?.end()
  })
})
