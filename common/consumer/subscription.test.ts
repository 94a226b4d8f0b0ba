import { expect, spyOn, test } from 'bun:test'
import type { Subscription } from '../broker/broker.ts'
import { ConfigError } from '../service/config.ts'
import { createLog } from '../service/log.ts'
import { eventually } from '../testing/eventually.ts'
import { createConsumer } from './subscription.ts'

function consumerOf(
  subscribe: () => Promise<Subscription>,
  outage = { ongoing: false },
  log = createLog('test', 'silent'),
) {
  const options = { name: 'requests', log, firstPauseMs: 1 }
  return createConsumer(options, { ongoing: () => outage.ongoing }, subscribe)
}

/** A running subscription that notes whether it was closed. */
function running() {
  const ended = Promise.withResolvers<void>()
  const closed: (number | undefined)[] = []
  const subscription: Subscription = {
    state: () => 'running',
    ended: ended.promise,
    lag: () => [],
    async close(graceMs) {
      closed.push(graceMs)
      ended.resolve()
    },
  }
  return { subscription, closed, ended }
}

test('nothing is subscribed to before the start', async () => {
  let asked = 0
  const consumer = consumerOf(async () => {
    asked += 1
    return running().subscription
  })
  await Promise.resolve()
  expect(asked).toBe(0)
  await consumer.start()
  expect(asked).toBe(1)
})

test('a subscription that cannot be made yet is made as soon as it can be, and the check fails until then', async () => {
  let refusals = 2
  const consumer = consumerOf(async () => {
    if (refusals-- > 0) throw new Error('The broker is down.')
    return running().subscription
  })
  await consumer.start()
  expect(consumer.check).toThrow('The consumer of requests is recovering.')
  await eventually(() => consumer.state() === 'running')
  await consumer.check()
  expect(refusals).toBe(-1)
})

test('the check fails during an outage', async () => {
  const outage = { ongoing: true }
  const consumer = consumerOf(async () => running().subscription, outage)
  await consumer.start()
  expect(consumer.check).toThrow('recovering')
  outage.ongoing = false
  await eventually(() => consumer.state() === 'running')
})

test('a fault of the configuration, or a subscription that gave up, ends the consumer', async () => {
  const misconfigured = consumerOf(() => Promise.reject(new ConfigError(['It has 5 partitions.'])))
  await misconfigured.start()
  await expect(misconfigured.ended).rejects.toThrow('It has 5 partitions.')
  expect(misconfigured.state()).toBe('failed')

  const { subscription, ended } = running()
  const gaveUp = consumerOf(async () => subscription)
  await gaveUp.start()
  ended.reject(new Error('It gave up.'))
  await expect(gaveUp.ended).rejects.toThrow('It gave up.')
  expect(gaveUp.check).toThrow('failed')
})

test('closing closes the subscription, also one that is made meanwhile, and ends the attempts to make one', async () => {
  const [open, late] = [running(), running()]
  const consumer = consumerOf(async () => open.subscription)
  await consumer.start()
  await eventually(() => consumer.state() === 'running')
  await consumer.close(500)
  await consumer.ended
  expect(open.closed).toEqual([500])

  const made = Promise.withResolvers<Subscription>()
  const subscribing = consumerOf(() => made.promise)
  await subscribing.start()
  const closing = subscribing.close(500)
  made.resolve(late.subscription)
  await closing
  expect(late.closed).toHaveLength(1)

  const refused = consumerOf(() => Promise.reject(new Error('The broker is down.')))
  await refused.start()
  await refused.close(500)
  await refused.ended
})

test('the pauses between attempts to subscribe begin with the first and double', async () => {
  const log = createLog('test', 'silent')
  using warned = spyOn(log, 'warn')
  let refusals = 4
  const subscribe = async () => {
    if (refusals-- > 0) throw new Error('The broker is down.')
    return running().subscription
  }
  const consumer = consumerOf(subscribe, { ongoing: false }, log)
  await consumer.start()
  await eventually(() => consumer.state() === 'running')
  expect(warned.mock.calls).toMatchObject([1, 2, 4, 8].map((pauseMs) => [{ pauseMs }, expect.any(String)]))
})

test('before it is subscribed it has no lag', () => {
  expect(consumerOf(() => new Promise(() => {})).lag()).toEqual([])
})
