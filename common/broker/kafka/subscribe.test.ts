import { describe, expect, test } from 'bun:test'
import { Kafka, logLevel } from 'kafkajs'
import { groups, topics } from '../../messages/topics.ts'
import { createLog } from '../../service/log.ts'
import { eventually } from '../broker.suite.ts'
import { subscribe } from './subscribe.ts'

/** A subscription whose topics the broker refuses to create. */
function refused(options: { ping: () => Promise<void>; giveUpMs: number }) {
  let tries = 0
  const subscribed = subscribe({
    ...options,
    connect: () => ({
      kafka: new Kafka({ clientId: 'test', brokers: ['127.0.0.1:1'], logLevel: logLevel.NOTHING }),
      kill() {},
    }),
    topics: {
      nameOf: (topic) => topic,
      async ensure() {
        tries += 1
        throw new Error('The topics cannot be created.')
      },
      forget() {},
    },
    group: groups.processor,
    groupId: groups.processor,
    to: [topics.requests],
    handle: async () => undefined,
    log: createLog('test', 'silent'),
  })
  return { subscribed, tries: () => tries }
}

describe('a subscription that cannot join', () => {
  test('gives up with the reason while the broker answers pings', async () => {
    const { subscribed, tries } = refused({ ping: async () => {}, giveUpMs: 500 })
    await expect(subscribed).rejects.toThrow('The topics cannot be created.')
    expect(tries()).toBeGreaterThan(1)
  })

  test('keeps trying, and is recovering, while the broker does not answer', async () => {
    const down = () => Promise.reject(new Error('The broker does not answer.'))
    const { subscribed, tries } = refused({ ping: down, giveUpMs: 100 })
    const subscription = await subscribed
    await eventually(() => tries() >= 3, 'it tries again')
    expect(subscription.state()).toBe('recovering')
    await subscription.close()
    await subscription.ended
  }, 20_000)
})
