import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import { openEmbedded } from '../broker/embedded/embedded.ts'
import { groups, topics } from '../messages/topics.ts'
import { systemDeps } from '../service/deps.ts'
import { createLog } from '../service/log.ts'
import { eventually } from '../testing/eventually.ts'
import { createFakeBroker, delivered } from '../testing/fake-broker.ts'
import { temporaryFolder } from '../testing/temporary-folder.ts'
import { consume } from './consume.ts'
import type { ConsumeOptions, Received, Verdict } from './handler.ts'
import { showLag } from './metrics.ts'

const done: Verdict = { done: true }

/** A consumer of texts, of which `poison` cannot be read. */
async function start(handle: ConsumeOptions<string>['handle'], more: Partial<ConsumeOptions<string>> = {}) {
  const fake = createFakeBroker()
  const consumer = consume<string>({
    name: 'requests',
    broker: fake.broker,
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
  await consumer.start()
  return { ...fake, consumer }
}

/** A handler of each message by itself. */
function oneByOne(verdictOn: (item: string) => Verdict | Promise<Verdict>): ConsumeOptions<string>['handle'] {
  return async (received) => {
    const verdicts: Verdict[] = []
    for (const { item } of received) verdicts.push(await verdictOn(item))
    return verdicts
  }
}

const items = (received: readonly Received<string>[]) => received.map(({ item }) => item)

describe('consume', () => {
  test('of 500 messages with a poison one among them, 499 are handled in order and one is a dead letter', async () => {
    const handled: string[] = []
    const { deliver, published } = await start(async (received) => {
      handled.push(...items(received))
      return received.map(() => done)
    })
    const batch = Array.from({ length: 500 }, (_, index) =>
      delivered(index, `user-${index % 7}`, index === 250 ? 'poison' : `m${index}`),
    )

    expect(await deliver(batch)).toBeUndefined()

    expect(handled).toEqual(batch.map(({ value }) => String(value)).filter((text) => text !== 'poison'))
    expect(published.map(({ topic }) => topic)).toEqual([topics.deadLetters, topics.events])
  })

  test('a retry holds its key alone: other keys go on, later messages of the key wait, the offset stays before it', async () => {
    const handled: string[] = []
    const over = Promise.withResolvers<void>()
    let attempts = 0
    const { deliver, committed } = await start(
      oneByOne(async (item) => {
        if (item === 'a1' && attempts++ === 0) return { retry: 'Not yet.' }
        if (item === 'a1') await over.promise
        handled.push(item)
        return done
      }),
    )

    const first = [delivered(0, 'a', 'a1'), delivered(1, 'a', 'a2'), delivered(2, 'b', 'b1')]
    expect(await deliver(first)).toEqual({ heldFrom: 0 })
    expect(await deliver([delivered(3, 'a', 'a3'), delivered(4, 'b', 'b2')])).toEqual({ heldFrom: 0 })
    expect(handled).toEqual(['a2', 'b1', 'b2'])
    over.resolve()
    await eventually(() => committed.length > 0)

    expect(handled).toEqual(['a2', 'b1', 'b2', 'a1', 'a2', 'a3'])
    expect(committed).toEqual([5])
    expect(await deliver([delivered(5, 'a', 'a4')])).toBeUndefined()
  })

  test('the offset moves neither past a message that is held nor past one that is still being handled', async () => {
    const gates = new Map(['a0', 'b1', 'c2', 'd3', 'b4'].map((item) => [item, Promise.withResolvers<void>()]))
    const attempted: string[] = []
    const { deliver, committed } = await start(
      oneByOne(async (item) => {
        attempted.push(item)
        const isFirst = attempted.indexOf(item) === attempted.length - 1
        if (isFirst && ['a0', 'b1', 'c2'].includes(item)) return { retry: 'Not yet.' }
        await gates.get(item)?.promise
        return done
      }),
    )
    await deliver([delivered(0, 'a', 'a0'), delivered(1, 'b', 'b1'), delivered(2, 'c', 'c2')])
    gates.get('c2')?.resolve()
    await eventually(() => committed.length === 1)
    const second = deliver([delivered(3, 'd', 'd3'), delivered(4, 'b', 'b4')])
    gates.get('b1')?.resolve()
    await eventually(() => attempted.includes('b4'))
    gates.get('a0')?.resolve()
    await eventually(() => committed.length === 2)
    expect(committed).toEqual([0, 3])

    gates.get('d3')?.resolve()
    gates.get('b4')?.resolve()
    await second
  })

  test('while more than 1000 messages of a partition are held, it takes no others', async () => {
    const order: string[] = []
    const { deliver } = await start(
      oneByOne((item) => {
        order.push(item)
        return order.length === 1 ? { retry: 'Not yet.' } : done
      }),
    )
    const sameKey = Array.from({ length: 1001 }, (_, index) => delivered(index, 'a', `m${index}`))
    await deliver(sameKey.slice(0, 1))
    await deliver(sameKey.slice(1)).then(() => order.push('the batch is over'))
    expect(order.slice(0, 2)).toEqual(['m0', 'm0'])
    expect(order).toContain('the batch is over')
  })

  test('what is to be retried behind a dead message of its key is handled once that one is set aside', async () => {
    const order: string[] = []
    const { deliver, failNextPublishes, committed } = await start(
      oneByOne((item) => {
        order.push(item)
        if (item === 'bad') return { dead: 'It never works.' }
        return order.includes('bad is set aside') ? done : { retry: 'One before it is not done yet.' }
      }),
      { onDead: async ({ item }) => void order.push(`${item} is set aside`) },
    )
    failNextPublishes(3)
    await deliver([delivered(0, 'a', 'bad'), delivered(1, 'a', 'good')])
    await eventually(() => committed.includes(2))
    expect(order).toEqual(['bad', 'good', 'bad is set aside', 'good'])
  })

  test('a message on which the handler gives no verdict is not done: it is retried, and dead in the end', async () => {
    const { deliver, published, committed } = await start(async () => [])
    await deliver([delivered(0, 'a', 'forgotten')])
    await eventually(() => committed.includes(1))
    expect(published.map(({ topic }) => topic)).toEqual([topics.deadLetters, topics.events])
  })

  test('an outage is no verdict: the same messages come again until it is over, and the state says so meanwhile', async () => {
    let failures = 3
    const states: string[] = []
    const { deliver, published, consumer } = await start(async (received) => {
      states.push(consumer.state())
      if (failures-- > 0) throw new Error('The store is down.')
      return received.map(() => done)
    })

    expect(await deliver([delivered(0, 'a', 'a1')])).toBeUndefined()

    expect(states).toEqual(['running', 'recovering', 'recovering', 'recovering'])
    expect(consumer.state()).toBe('running')
    expect(published).toEqual([])
  })

  test('once the partition is lost nothing more is handled or committed', async () => {
    let handled = 0
    const { deliver, losePartition, committed } = await start(async () => {
      handled += 1
      losePartition()
      throw new Error('The store is down.')
    })
    await expect(deliver([delivered(0, 'a', 'a1')])).rejects.toThrow('The partition is lost.')
    expect(committed).toEqual([])
    expect(handled).toBe(1)
  })

  test('a handler that stands still shows as lag, and takes no more than one batch into memory', async () => {
    using folder = temporaryFolder()
    const broker = openEmbedded({ path: join(folder.path, 'broker.db') })
    const metrics = new Registry()
    const goOn = Promise.withResolvers<void>()
    let taken = 0
    const { consumer } = await start(
      async (received) => {
        taken += received.length
        await goOn.promise
        return received.map(() => done)
      },
      { broker, metrics },
    )
    const shown = () => metrics.getSingleMetricAsString('posta_consumer_lag')
    const line = 'posta_consumer_lag{topic="posta.requests",partition="0",group="posta.processor"}'
    await eventually(() => consumer.state() === 'running')
    const outgoing = { topic: topics.requests, key: 'user', value: Buffer.from('m'), headers: [] }
    for (let published = 0; published < 5000; published += 1000)
      await broker.publish(Array.from({ length: 1000 }, () => outgoing))

    await eventually(() => taken > 0)
    expect(await shown()).toContain(`${line} 5000`)
    expect(taken).toBeLessThanOrEqual(1000)

    goOn.resolve()
    await eventually(async () => (await shown()).includes(`${line} 0`))
    expect(taken).toBe(5000)
    await broker.close()
  })

  test('what has not happened yet is shown as 0, so that its first time counts as an increase', async () => {
    const metrics = new Registry()
    await start(async () => [], { metrics })
    for (const name of ['posta_dead_letters_total', 'posta_message_retries_total'])
      expect(await metrics.getSingleMetricAsString(name)).toContain(
        `${name}{group="posta.processor",topic="posta.requests"} 0`,
      )
  })

  test('retries and dead letters are counted for their group and topic', async () => {
    const metrics = new Registry()
    const { deliver, committed } = await start(async () => [{ retry: 'It fails.' }], { metrics })
    await deliver([delivered(0, 'a', 'poison'), delivered(1, 'b', 'bad')])
    await eventually(() => committed.includes(2))
    const ofRequests = '{group="posta.processor",topic="posta.requests"}'
    const count = async (name: string) =>
      (await metrics.getSingleMetricAsString(name)).split('\n').filter((line) => line.startsWith(name))
    expect(await count('posta_message_retries_total')).toEqual([`posta_message_retries_total${ofRequests} 4`])
    expect(await count('posta_dead_letters_total')).toEqual([`posta_dead_letters_total${ofRequests} 2`])
  })

  test('an unreadable message reaches neither the handler nor onDead', async () => {
    const calls: string[] = []
    const { deliver } = await start(
      async () => {
        calls.push('handle')
        return []
      },
      { onDead: async () => void calls.push('onDead') },
    )
    await deliver([delivered(0, 'a', 'poison')])
    expect(calls).toEqual([])
  })

  test('a partition that is lost is no longer shown as lag', async () => {
    const metrics = new Registry()
    const lag = [{ topic: topics.requests, partition: 0, lag: 7 }]
    showLag({ group: groups.processor, topics: [topics.requests], metrics }, { lag: () => lag })
    const shown = () => metrics.getSingleMetricAsString('posta_consumer_lag')
    expect(await shown()).toContain(' 7')
    lag.length = 0
    expect(await shown()).not.toContain('partition="0"')
  })
})
