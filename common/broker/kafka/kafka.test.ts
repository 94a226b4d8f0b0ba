import { afterEach, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type Admin, Kafka, logLevel, Partitioners } from 'kafkajs'
import { pino } from 'pino'
import type { Delivered } from '../../messages/message.ts'
import { groups, topicSettings, topics } from '../../messages/topics.ts'
import { describeBroker, eventually } from '../broker.suite.ts'
import type { Broker } from '../broker.ts'
import { openQuietly } from './kafka.test.child.ts'

const url = process.env.TEST_BROKER_URL
const TIMEOUT_MS = 60_000

if (url) {
  describeBroker(
    'kafka',
    () => {
      const options = { url, namespace: `test-${Bun.randomUUIDv7()}` }
      return {
        open: () => openQuietly(options),
        child: { module: join(import.meta.dir, 'kafka.test.child.ts'), open: 'openQuietly', options },
        dispose: () => removeTopics(options),
      }
    },
    { takeoverMs: 10_000, membersShare: true },
  )
}

describe.skipIf(!url)('on Kafka', () => {
  let closing: (() => Promise<unknown>)[] = []
  let cleaning: (() => Promise<unknown>)[] = []

  afterEach(async () => {
    await Promise.all(closing.map((close) => close()))
    await Promise.all(cleaning.map((clean) => clean()))
    closing = []
    cleaning = []
  }, TIMEOUT_MS)

  function scene() {
    const options = { url: url ?? '', namespace: `test-${Bun.randomUUIDv7()}` }
    const foreign = foreignClient(options.url)
    cleaning.push(() => removeTopics(options))
    return {
      foreign,
      name: (topic: string) => `${options.namespace}.${topic}`,
      /** `onLog` gets each line of the log, with those of kafkajs. */
      open(onLog?: (line: string) => void): Broker {
        const log = onLog && pino({ level: 'debug' }, { write: onLog })
        const broker = openQuietly(options, log)
        closing.push(() => broker.close())
        return broker
      },
      async admin(): Promise<Admin> {
        const admin = foreign.admin()
        await admin.connect()
        closing.push(() => admin.disconnect())
        return admin
      },
    }
  }

  function outgoing(key: string, text: string) {
    return { topic: topics.requests, key, value: Buffer.from(text), headers: [] }
  }

  function textOf({ value }: Delivered): string {
    return Buffer.from(value ?? []).toString()
  }

  test(
    'a topic with another number of partitions is refused; the error says what was found and what to do',
    async () => {
      const { open, admin, name } = scene()
      await (await admin()).createTopics({ topics: [{ topic: name(topics.results), numPartitions: 3 }] })
      const broker = open()
      const fault = await broker.subscribe(groups.gateway, [topics.results], async () => {}).catch((error) => error)
      expect(fault).toMatchObject({ name: 'TopicMismatch' })
      expect(fault.message).toContain(
        `${name(topics.results)} has 3 partitions; ${topicSettings[topics.results].partitions}`,
      )
      expect(fault.message).toContain('delete it')
      await expect(broker.publish([outgoing('a', 'b')])).rejects.toThrow('has 3 partitions')
    },
    TIMEOUT_MS,
  )

  test(
    'brokers that are opened at the same time create each topic once, with its settings',
    async () => {
      const { open, admin, name } = scene()
      await Promise.all(Array.from({ length: 4 }, () => open().publish([outgoing('a', 'b')])))
      const { topics: found } = await (await admin()).fetchTopicMetadata({ topics: Object.values(topics).map(name) })
      const counts = Object.fromEntries(found.map((each) => [each.name, each.partitions.length]))
      for (const topic of Object.values(topics)) expect(counts[name(topic)]).toBe(topicSettings[topic].partitions)
      const { resources } = await (await admin()).describeConfigs({
        includeSynonyms: false,
        resources: [{ type: 2, name: name(topics.deadLetters), configNames: ['retention.ms'] }],
      })
      expect(resources[0]?.configEntries[0]?.configValue).toBe(String(topicSettings[topics.deadLetters].retentionMs))
    },
    TIMEOUT_MS,
  )

  test(
    'messages of other programs arrive as they are: without a key or a value, and with odd header names',
    async () => {
      const { open, foreign, name } = scene()
      const broker = open()
      const got: Delivered[] = []
      await broker.subscribe(groups.monitor, [topics.events], async ({ messages }) => {
        got.push(...messages)
      })
      const producer = foreign.producer({ createPartitioner: Partitioners.DefaultPartitioner })
      await producer.connect()
      closing.push(() => producer.disconnect())
      const headers = {
        constructor: 'a name like any other',
        '2': 'two',
        '': 'nameless',
        ['__proto__']: 'no prototype',
        again: ['first', Buffer.from([0xff, 0x00])],
      }
      await producer.send({
        topic: name(topics.events),
        messages: [
          { partition: 1, key: null, value: null, headers },
          { partition: 1, key: Buffer.from([0xff, 0xfe]), value: '', timestamp: '1700000000000' },
        ],
      })
      await eventually(() => got.length === 2, 'both arrive')
      const [first, second] = got
      expect(first).toMatchObject({ key: null, value: null, partition: 1, offset: 0 })
      const headerValues = (wanted: string) =>
        first?.headers.filter(([each]) => each === wanted).map(([, value]) => Buffer.from(value).toString('latin1'))
      expect(headerValues('constructor')).toEqual(['a name like any other'])
      expect(headerValues('__proto__')).toEqual(['no prototype'])
      expect(headerValues('2')).toEqual(['two'])
      expect(headerValues('')).toEqual(['nameless'])
      expect(headerValues('again')).toEqual(['first', '\xff\x00'])
      expect(second).toMatchObject({ key: Buffer.from([0xff, 0xfe]), headers: [], timestampMs: 1_700_000_000_000 })
      expect(second?.value).toHaveLength(0)
    },
    TIMEOUT_MS,
  )

  test(
    'a second member joins only after running handlers have finished and committed: each message is handled once',
    async () => {
      const { open } = scene()
      let rebalancing = false
      const one = open((line) => {
        rebalancing ||= line.includes('The group is rebalancing')
      })
      const two = open()
      const handled: string[] = []
      const gate = Promise.withResolvers<void>()
      let started = 0
      let aborted = false
      await one.subscribe(groups.processor, [topics.requests], async ({ messages, signal }) => {
        started++
        await gate.promise
        aborted ||= signal.aborted
        handled.push(...messages.map(textOf))
      })
      const texts = Array.from({ length: 12 }, (_, i) => `${i}`)
      await one.publish(texts.map((text) => outgoing(`key-${text}`, text)))
      await eventually(() => started > 1, 'handlers run')
      const joining = two.subscribe(groups.processor, [topics.requests], async ({ messages }) => {
        handled.push(...messages.map(textOf))
      })
      await eventually(() => rebalancing, 'the first member sees the second')
      expect(handled).toEqual([])
      gate.resolve()
      await joining
      await eventually(() => handled.length >= 12, 'all are handled')
      expect(aborted).toBe(false)
      await two.publish([outgoing('key-0', 'last')])
      await eventually(() => handled.includes('last'), 'the group goes on')
      expect(handled.toSorted()).toEqual([...texts, 'last'].toSorted())
    },
    TIMEOUT_MS,
  )

  test(
    'a handler that does not end when the group changes is aborted, and another member gets its messages',
    async () => {
      const { open } = scene()
      const [one, two] = [open(), open()]
      let running = 0
      let aborts = 0
      const handled: string[] = []
      await one.subscribe(groups.processor, [topics.requests], async ({ signal }) => {
        running++
        await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
        aborts++
        // It resolves as if it had not seen the abort, which must not move the offset.
      })
      await one.publish([outgoing('a', '1')])
      await one.publish([outgoing('b', '2')])
      // Else the other member may get both partitions while nothing is handled, and no signal aborts.
      await eventually(() => running > 0, 'a handler runs')
      await two.subscribe(groups.processor, [topics.requests], async ({ messages }) => {
        handled.push(...messages.map(textOf))
      })
      await eventually(() => aborts > 0, 'the signals abort')
      await one.close()
      await eventually(() => handled.includes('1') && handled.includes('2'), 'the other member has them')
    },
    TIMEOUT_MS,
  )

  test(
    'a topic that is deleted while in use is created again; publishing and handling go on from its first offset',
    async () => {
      const { open, admin, name } = scene()
      const broker = open()
      const handled: string[] = []
      const subscription = await broker.subscribe(groups.processor, [topics.requests], async ({ messages }) => {
        handled.push(...messages.map(textOf))
      })
      await broker.publish(Array.from({ length: 20 }, (_, i) => outgoing(`key-${i}`, `old ${i}`)))
      await eventually(() => handled.length === 20, 'the old ones are handled')
      const deleting = await admin()
      await deleting.deleteTopics({ topics: [name(topics.requests)] })
      const exists = async () => (await deleting.listTopics()).includes(name(topics.requests))
      await eventually(exists, 'the topic is there again', 30_000)
      const [position] = await broker.publish([outgoing('key-1', 'new')])
      expect(position?.offset).toBe(0)
      await eventually(() => handled.includes('new'), 'the new ones are handled', 30_000)
      await eventually(() => subscription.state() === 'running', 'it runs again')
    },
    2 * TIMEOUT_MS,
  )

  test(
    'a group whose unread messages were removed goes on with the oldest that is left',
    async () => {
      const { open, admin, name } = scene()
      const before = open()
      const handled: string[] = []
      await before.subscribe(groups.processor, [topics.requests], async ({ messages }) => {
        handled.push(...messages.map(textOf))
      })
      const [position] = await before.publish([outgoing('a', '0')])
      await eventually(() => handled.length === 1, 'the first is handled')
      await before.close()
      const after = open()
      await after.publish(['1', '2', '3'].map((text) => outgoing('a', text)))
      const remover = await admin()
      // Without the topic's metadata kafkajs removes nothing.
      await remover.fetchTopicMetadata({ topics: [name(topics.requests)] })
      await remover.deleteTopicRecords({
        topic: name(topics.requests),
        partitions: [{ partition: position?.partition ?? -1, offset: '3' }],
      })
      await after.subscribe(groups.processor, [topics.requests], async ({ messages }) => {
        handled.push(...messages.map(textOf))
      })
      await eventually(() => handled.includes('3'), 'the last arrives')
      expect(handled).toEqual(['0', '3'])
    },
    TIMEOUT_MS,
  )
})

/** kafkajs without our driver, as another program uses the broker. */
function foreignClient(brokerUrl: string): Kafka {
  return new Kafka({
    brokers: [brokerUrl.replace(/^kafka:\/\/([^/?,]+).*$/, '$1')],
    logLevel: logLevel.NOTHING,
    retry: { retries: 10, initialRetryTime: 100, maxRetryTime: 1000 },
  })
}

/** A broker that is used for many runs must not fill up with topics. */
async function removeTopics({ url: brokerUrl, namespace }: { url: string; namespace: string }): Promise<void> {
  const admin = foreignClient(brokerUrl).admin()
  await admin.connect()
  const names = (await admin.listTopics()).filter((name) => name.startsWith(`${namespace}.`))
  if (names.length > 0) await admin.deleteTopics({ topics: names })
  await admin.disconnect()
}
