import { describe, expect, test } from 'bun:test'
import { Kafka, logLevel } from 'kafkajs'
import { groups, topics } from '../../messages/topics.ts'
import { createLog } from '../../service/log.ts'
import { eventually } from '../broker.suite.ts'
import { subscribe } from './subscribe.ts'

/** A subscription to topics that the broker refuses to make. */
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
        throw new Error('The topics cannot be made.')
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
  test('gives up with the reason where the broker answers all the time', async () => {
    const { subscribed, tries } = refused({ ping: async () => {}, giveUpMs: 500 })
    await expect(subscribed).rejects.toThrow('The topics cannot be made.')
    expect(tries()).toBeGreaterThan(1)
  })

  test('goes on, and says that it recovers, where the broker is away', async () => {
    const away = () => Promise.reject(new Error('Nobody answers.'))
    const { subscribed, tries } = refused({ ping: away, giveUpMs: 100 })
    const subscription = await subscribed
    await eventually(() => tries() >= 4, 'it tries again')
    expect(subscription.state()).toBe('recovering')
    await subscription.close()
    await subscription.ended
  }, 20_000)
})
