import { expect, test } from 'bun:test'
import { createLog } from '../service/log.ts'
import { eventually } from '../testing/eventually.ts'
import { delivered } from '../testing/fake-broker.ts'
import type { Verdict } from './handler.ts'
import { createRetries } from './retry.ts'

const received = (item: string, offset = 0) => ({ item, message: delivered(offset, 'a', item) })

/** Retries by a clock that the test sets. `log` is what happened, in order. */
function retriesOf(verdictOn: (item: string) => Verdict, clock: { readonly nowMs: number }, firstPauseMs = 1) {
  const log: string[] = []
  const retries = createRetries<string>({
    async handle({ item }) {
      log.push(item)
      return verdictOn(item)
    },
    setAside: async ({ item }, reason) => void log.push(`${item} is dead: ${reason}`),
    onRetry: () => {},
    onReleased: async () => void log.push('released'),
    signal: new AbortController().signal,
    firstPauseMs,
    deps: { monotonicMs: () => clock.nowMs },
    log: createLog('test', 'silent'),
  })
  return { retries, log, released: () => eventually(() => log.includes('released')) }
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
