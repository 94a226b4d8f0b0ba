import { expect, test } from 'bun:test'
import { createLog } from '../service/log.ts'
import { eventually } from '../testing/eventually.ts'
import { delivered } from '../testing/fake-broker.ts'
import type { Verdict } from './handler.ts'
import { createRetries } from './retry.ts'

const received = (item: string, offset = 0) => ({ item, message: delivered(offset, 'a', item) })

/** Retries by a clock that the test sets. `log` is what happened, in order. */
function retriesOf(
  verdictOn: (item: string) => Verdict,
  clock: { readonly nowMs: number },
  firstPauseMs = 1,
  onReleased = async () => {},
) {
  const log: string[] = []
  /** The offset of the message of each retry. */
  const again: number[] = []
  const lost = new AbortController()
  const retries = createRetries<string>({
    async handle({ item }) {
      log.push(item)
      return verdictOn(item)
    },
    setAside: async ({ item }, reason) => void log.push(`${item} is dead: ${reason}`),
    onRetry: ({ offset }) => void again.push(offset),
    async onReleased() {
      log.push('released')
      await onReleased()
    },
    signal: lost.signal,
    firstPauseMs,
    deps: { monotonicMs: () => clock.nowMs },
    log: createLog('test', 'silent'),
  })
  const lose = () => lost.abort(new Error('The partition is lost.'))
  return { retries, log, again, lose, released: () => eventually(() => log.includes('released')) }
}

test('a message is dead after 5 attempts, and the one behind it is handled then', async () => {
  const { retries, log, released } = retriesOf((item) => (item === 'bad' ? { retry: 'It fails.' } : { done: true }), {
    nowMs: 0,
  })
  const begin = retries.hold(received('bad'), 'It fails.')
  expect(retries.enqueue(received('good', 1))).toBe(true)
  begin()
  await released()
  expect(log).toEqual([
    ...['bad', 'bad', 'bad', 'bad', 'bad is dead: It fails. (given up after 5 attempts)'],
    ...['good', 'released'],
  ])
})

test('a message is dead 10 s after its first attempt failed, however few attempts there were', async () => {
  const clock = { nowMs: 0 }
  const { retries, log, released } = retriesOf(() => {
    clock.nowMs += 6000
    return { retry: 'It is slow.' }
  }, clock)
  retries.hold(received('slow'), 'It is slow.')()
  await released()
  expect(log).toEqual(['slow', 'slow', 'slow is dead: It is slow. (given up after 3 attempts)', 'released'])
})

test('no pause outlasts the 10 s', async () => {
  const timesMs = [0]
  const clock = {
    get nowMs() {
      return timesMs.shift() ?? 9999
    },
  }
  const { retries, log, released } = retriesOf(() => ({ done: true }), clock, 60_000)
  retries.hold(received('late'), 'Not yet.')()
  await released()
  expect(log).toEqual(['late', 'released'])
})

test('attempts and time count anew for each message of a key', async () => {
  const clock = { nowMs: 0 }
  const { retries, log, released } = retriesOf((item) => {
    clock.nowMs += 9000
    return log.filter((each) => each === item).length < 2 ? { retry: 'Not yet.' } : { done: true }
  }, clock)
  const begin = retries.hold(received('a'), 'Not yet.')
  for (const item of ['b', 'c']) retries.enqueue(received(item, 1))
  begin()
  await released()
  expect(log).toEqual(['a', 'a', 'b', 'b', 'c', 'c', 'released'])
})

test('a key is held from its first message that waits until its last is done', async () => {
  const { retries, released } = retriesOf(() => ({ done: true }), { nowMs: 0 })
  expect(retries.enqueue(received('a', 7))).toBe(false)
  expect(retries.oldest()).toBe(Number.POSITIVE_INFINITY)
  const begin = retries.hold(received('a', 7), 'Not yet.')
  expect(retries.enqueue({ item: 'other', message: delivered(8, 'b', 'other') })).toBe(false)
  expect(retries.oldest()).toBe(7)
  begin()
  await released()
  expect(retries.enqueue(received('a', 9))).toBe(false)
})

test('each attempt after the first is counted', async () => {
  const { retries, again, released } = retriesOf(() => ({ retry: 'It fails.' }), { nowMs: 0 })
  retries.hold(received('bad', 3), 'It fails.')()
  await released()
  expect(again).toEqual([3, 3, 3, 3])
})

test('once the partition is lost no pause is waited out, nothing is attempted, and nobody gets room', async () => {
  const { retries, log, lose } = retriesOf(() => ({ done: true }), { nowMs: 0 }, 60_000)
  const begin = retries.hold(received('m0', 0), 'Not yet.')
  for (let offset = 1; offset < 1000; offset++) retries.enqueue(received(`m${offset}`, offset))
  await retries.room()
  retries.enqueue(received('m1000', 1000))
  begin()
  const room = retries.room()
  lose()
  await expect(room).rejects.toThrow('The partition is lost.')
  expect(log).toEqual([])
})

test('messages without a key do not wait for one another', () => {
  const { retries } = retriesOf(() => ({ done: true }), { nowMs: 0 })
  const keyless = (offset: number) => ({ item: 'any', message: { ...delivered(offset, '', 'any'), key: null } })
  retries.hold(keyless(0), 'Not yet.')
  expect(retries.enqueue(keyless(1))).toBe(false)
  expect(retries.enqueue(keyless(0))).toBe(true)
})

test('an offset that cannot be committed after the retries stops nothing: the next commit moves it', async () => {
  const { retries, log, released } = retriesOf(
    () => ({ done: true }),
    { nowMs: 0 },
    1,
    () => Promise.reject(new Error('The broker is down.')),
  )
  retries.hold(received('a', 0), 'Not yet.')()
  await released()
  log.length = 0
  retries.hold(received('b', 1), 'Not yet.')()
  await released()
  expect(log).toEqual(['b', 'released'])
})
