import { describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import { openEmbedded } from '../broker/embedded/embedded.ts'
import { decodeDeadLetter } from '../messages/dead-letter.ts'
import { decode } from '../messages/envelope.ts'
import type { Delivered, Outgoing } from '../messages/message.ts'
import { groups, topics } from '../messages/topics.ts'
import { systemDeps } from '../service/deps.ts'
import { createLog } from '../service/log.ts'
import { createFakeBroker } from '../testing/fake-broker.ts'
import { type Consumer, consume, type Received, type Verdict } from './consume.ts'

const done: Verdict = { done: true }

/** A message whose value is `text`, and unreadable where that is `poison`. */
function message(offset: number, key: string, text: string): Delivered {
  return {
    topic: topics.requests,
    partition: 0,
    offset,
    timestampMs: 1000,
    key: Buffer.from(key),
    value: Buffer.from(text),
    headers: [],
  }
}

function start(handle: Consumer<string>['handle'], more: Partial<Consumer<string>> = {}) {
  const hand = createFakeBroker()
  const subscription = consume<string>({
    broker: hand.broker,
    group: groups.processor,
    topics: [topics.requests],
    read: ({ value }) => (String(value) === 'poison' ? { unreadable: 'It is poison.' } : { item: String(value) }),
    handle,
    log: createLog('test', 'silent'),
    metrics: new Registry(),
    deps: systemDeps,
    firstPauseMs: 1,
    ...more,
  })
  return { ...hand, subscription }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await Bun.sleep(1)
}

const items = (received: readonly Received<string>[]) => received.map(({ item }) => item)

describe('consume', () => {
  test('of 500 messages with a poison one among them, 499 are handled in order and one is a dead letter', async () => {
    const handled: string[] = []
    const { deliver, published } = start(async (received) => {
      handled.push(...items(received))
      return received.map(() => done)
    })
    const batch = Array.from({ length: 500 }, (_, index) =>
      message(index, `user-${index % 7}`, index === 250 ? 'poison' : `m${index}`),
    )

    expect(await deliver(batch)).toBeUndefined()

    expect(handled).toEqual(batch.map(({ value }) => String(value)).filter((text) => text !== 'poison'))
    expect(published.map(({ topic }) => topic)).toEqual([topics.deadLetters, topics.events])
  })

  test('a dead letter has the original bytes, key and headers, and where it stood and why', async () => {
    const { deliver, published } = start(async () => [])
    const original = {
      ...message(7, 'user', 'poison'),
      headers: [
        ['ce_subject', Buffer.from('operation-1')],
        ['odd', Buffer.from([0, 255])],
      ] as const,
    }

    await deliver([original])

    const [letter, event] = published
    if (!letter || !event) throw new Error('Nothing was published.')
    const arrived = (outgoing: Outgoing): Delivered => ({
      ...outgoing,
      key: Buffer.from(outgoing.key),
      partition: 0,
      offset: 0,
      timestampMs: 0,
    })
    expect(decodeDeadLetter(arrived(letter))).toEqual({
      id: 'posta.requests.0.7.1000',
      group: groups.processor,
      reason: 'It is poison.',
      original,
    })
    expect(decode(arrived(event))).toMatchObject({
      envelope: {
        type: 'posta.message.dead-lettered',
        subject: 'operation-1',
        data: {
          deadLetter: 'posta.requests.0.7.1000',
          user: 'user',
          topic: topics.requests,
          offset: 7,
          reason: 'It is poison.',
        },
      },
    })
  })

  test('a retry holds its key alone: other keys go on, later messages of the key wait, the offset stays before it', async () => {
    const handled: string[] = []
    let fails = true
    const { deliver, committed } = start(
      async (received) =>
        received.map(({ item }) => {
          if (item === 'a1' && fails) return { retry: 'Not yet.' }
          handled.push(item)
          return done
        }),
      { firstPauseMs: 20 },
    )

    expect(await deliver([message(0, 'a', 'a1'), message(1, 'b', 'b1')])).toEqual({ heldFrom: 0 })
    expect(await deliver([message(2, 'a', 'a2'), message(3, 'b', 'b2')])).toEqual({ heldFrom: 0 })
    expect(handled).toEqual(['b1', 'b2'])
    fails = false
    await until(() => committed.length > 0)

    expect(handled).toEqual(['b1', 'b2', 'a1', 'a2'])
    expect(committed).toEqual([4])
    expect(await deliver([message(4, 'a', 'a3')])).toBeUndefined()
  })

  test('a message is dead after 5 attempts, the one behind it goes on, and onDead runs once the dead letter is sent', async () => {
    let attempts = 0
    const order: string[] = []
    const hand = start(
      async (received) =>
        received.map(({ item }) => {
          if (item === 'bad') {
            attempts += 1
            return { retry: 'It fails.' }
          }
          order.push(item)
          return done
        }),
      {
        onDead: async ({ item }, reason) =>
          void order.push(`dead ${item}, ${hand.published.length} published: ${reason}`),
      },
    )
    await hand.deliver([message(0, 'a', 'bad')])
    await hand.deliver([message(1, 'a', 'good')])
    await until(() => hand.committed.includes(2))

    expect(attempts).toBe(5)
    expect(order).toEqual(['dead bad, 2 published: It fails. (given up after 5 attempts)', 'good'])
    expect(hand.published.map(({ topic }) => topic)).toEqual([topics.deadLetters, topics.events])
  })

  test('what is to be tried again behind a dead message of its key comes once that one is set aside', async () => {
    const order: string[] = []
    let asked = 0
    const hand = start(
      async (received) =>
        received.map(({ item }) => {
          order.push(item)
          if (item === 'bad') return { dead: 'It never works.' }
          asked += 1
          return asked === 1 ? { retry: 'One before it is not done yet.' } : done
        }),
      { onDead: async ({ item }) => void order.push(`${item} is set aside`) },
    )
    hand.failNextPublishes(3)
    await hand.deliver([message(0, 'a', 'bad'), message(1, 'a', 'good')])
    await until(() => hand.committed.includes(2))
    expect(order).toEqual(['bad', 'good', 'bad is set aside', 'good'])
  })

  test('trouble is no outcome: the same messages come again until it is over, and the state says so meanwhile', async () => {
    let troubles = 3
    const states: string[] = []
    const { deliver, published, subscription } = start(async (received) => {
      states.push(subscription.state())
      if (troubles-- > 0) throw new Error('The store is away.')
      return received.map(() => done)
    })

    expect(await deliver([message(0, 'a', 'a1')])).toBeUndefined()

    expect(states).toEqual(['running', 'recovering', 'recovering', 'recovering'])
    expect(subscription.state()).toBe('running')
    expect(published).toEqual([])
  })

  test('a dead letter that the broker does not take is sent again before the offset moves', async () => {
    const hand = start(async () => [])
    hand.failNextPublishes(2)
    expect(await hand.deliver([message(0, 'a', 'poison')])).toBeUndefined()
    expect(hand.published).toHaveLength(2)
  })

  test('once the partition is lost nothing more is handled or committed', async () => {
    let handled = 0
    const hand = start(async () => {
      handled += 1
      hand.losePartition()
      throw new Error('The store is away.')
    })
    expect(hand.deliver([message(0, 'a', 'a1')])).rejects.toThrow()
    await until(() => handled > 0)
    expect(hand.committed).toEqual([])
    expect(handled).toBe(1)
  })

  test('a subscription that cannot be made yet is made as soon as it can be', async () => {
    const hand = createFakeBroker()
    let refusals = 2
    const subscription = consume<string>({
      broker: {
        ...hand.broker,
        subscribe: async (...asked) => {
          if (refusals-- > 0) throw new Error('The broker is away.')
          return hand.broker.subscribe(...asked)
        },
      },
      group: groups.monitor,
      topics: [topics.events],
      read: () => ({ item: '' }),
      handle: async (received) => received.map(() => done),
      log: createLog('test', 'silent'),
      metrics: new Registry(),
      deps: systemDeps,
    })
    expect(subscription.state()).toBe('recovering')
    await until(() => subscription.state() === 'running')
    expect(refusals).toBe(-1)
  })

  test('a handler that stands still shows as lag, and takes no more than one batch into memory', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'consume-'))
    const broker = openEmbedded({ path: join(folder, 'broker.db') })
    const metrics = new Registry()
    const goOn = Promise.withResolvers<void>()
    let taken = 0
    const subscription = consume<string>({
      broker,
      group: groups.processor,
      topics: [topics.requests],
      read: () => ({ item: '' }),
      async handle(received) {
        taken += received.length
        await goOn.promise
        return received.map(() => done)
      },
      log: createLog('test', 'silent'),
      metrics,
      deps: systemDeps,
    })
    const shown = () => metrics.getSingleMetricAsString('posta_consumer_lag')
    const line = 'posta_consumer_lag{topic="posta.requests",partition="0",group="posta.processor"}'
    await until(() => subscription.lag().length > 0)
    const outgoing = { topic: topics.requests, key: 'user', value: Buffer.from('m'), headers: [] }
    for (let published = 0; published < 5000; published += 1000)
      await broker.publish(Array.from({ length: 1000 }, () => outgoing))

    await until(() => taken > 0)
    expect(await shown()).toContain(`${line} 5000`)
    expect(taken).toBeLessThanOrEqual(1000)

    goOn.resolve()
    await until(() => subscription.lag()[0]?.lag === 0)
    expect(await shown()).toContain(`${line} 0`)
    expect(taken).toBe(5000)
    await broker.close()
    rmSync(folder, { recursive: true })
  })

  test('what has not happened yet is shown as 0, so that its first time counts as an increase', async () => {
    const metrics = new Registry()
    start(async () => [], { metrics })
    for (const name of ['posta_dead_letters_total', 'posta_message_retries_total'])
      expect(await metrics.getSingleMetricAsString(name)).toContain(
        `${name}{group="posta.processor",topic="posta.requests"} 0`,
      )
  })
})
