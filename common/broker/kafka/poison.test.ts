import { afterEach, describe, expect, test } from 'bun:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { type Admin, Kafka, logLevel } from 'kafkajs'
import { encodeDeadLetter } from '../../messages/dead-letter.ts'
import type { Delivered } from '../../messages/message.ts'
import { groups, topicSettings, topics } from '../../messages/topics.ts'
import { eventually } from '../../testing/eventually.ts'
import { encodeBatch, encodeRecords, lz4, produceRaw, type RawRecord, snappy } from '../../testing/raw-records.ts'
import type { Broker } from '../broker.ts'
import { openQuietly } from './kafka.test.child.ts'
import { FRAMING_BYTES } from './topics.ts'

const url = process.env.TEST_BROKER_URL ?? ''
const TIMEOUT_MS = 60_000
const HANDLED_WITHIN_MS = 20_000

const MESSAGE_TOO_LARGE = 10

const MIB = 1024 * 1024

function batchOf(records: readonly RawRecord[], pack: (records: Buffer) => Uint8Array = (same) => same, codec = 0) {
  return encodeBatch(pack(encodeRecords(records)), { count: records.length, attributes: codec })
}

const good = (text: string) => batchOf([{ key: Buffer.from('ana'), value: Buffer.from(text) }])
const small: RawRecord = { value: Buffer.from('small') }

const headers = (count: number) => Array.from({ length: count }, () => [Buffer.from('h'), Buffer.from('v')] as const)

/** What a program with write access to a topic sends, in one request, and how the message says why it is unreadable. */
const attacks: readonly [name: string, batch: () => Buffer, reason: RegExp][] = [
  ['80 bytes of zstd', () => batchOf([small], zstdCompressSync, 4), /zstd/],
  ['90 bytes of snappy', () => batchOf([small], snappy, 2), /snappy/],
  ['90 bytes of lz4', () => batchOf([small], lz4, 3), /lz4/],
  [
    '3 KB of gzip with a message of 3 MB',
    () => batchOf([{ value: Buffer.alloc(3 * MIB) }], gzipSync, 1),
    /3145737 bytes/,
  ],
  ['300 KB of gzip with a message of 300 MB', () => batchOf([{ value: Buffer.alloc(3e8) }], gzipSync, 1), /unpack/],
  [
    '60 KB of gzip with 60 messages of 1 MB',
    () => batchOf(Array(60).fill({ value: Buffer.alloc(1e6) }), gzipSync, 1),
    /unpack/,
  ],
  ['one message with 20,000 headers', () => batchOf([{ headers: headers(20_000) }]), /20000 headers/],
  ['100,000 empty messages', () => batchOf(Array(100_000).fill({})), /100000 messages/],
  ['messages whose offsets go back', () => batchOf([{ offsetDelta: 5 }, { offsetDelta: 0 }]), /offset/],
  ['a message whose offset lies far ahead', () => batchOf([{ offsetDelta: 2 ** 31 - 1 }]), /offset/],
  ['a message whose offset lies before its batch', () => batchOf([{ offsetDelta: -5 }]), /offset/],
]

describe.skipIf(url === '')('on a Kafka topic that keeps batches as they come', () => {
  let closing: (() => Promise<unknown>)[] = []
  afterEach(async () => {
    for (const close of closing.toReversed()) await close()
    closing = []
  }, TIMEOUT_MS)

  /** The topics of requests and dead letters, as a version before this one made them and as Redpanda keeps them. */
  async function scene() {
    const namespace = `test-${Bun.randomUUIDv7()}`
    const name = (topic: string) => `${namespace}.${topic}`
    const kafka = new Kafka({ brokers: [new URL(url).host], logLevel: logLevel.NOTHING })
    const admin = kafka.admin()
    await admin.connect()
    closing.push(() => removeTopics(admin, namespace))
    await admin.createTopics({
      waitForLeaders: false,
      topics: [topics.requests, topics.deadLetters].map((topic) => ({
        topic: name(topic),
        numPartitions: topicSettings[topic].partitions,
        configEntries: [
          { name: 'compression.type', value: 'producer' },
          { name: 'max.message.bytes', value: String(topicSettings[topic].maxMessageBytes + FRAMING_BYTES) },
        ],
      })),
    })
    return {
      name,
      kafka,
      open(): Broker {
        const broker = openQuietly({ url, namespace })
        closing.push(() => broker.close())
        return broker
      },
      async produce(batch: Buffer) {
        expect(await produceRaw(url, name(topics.requests), 0, batch)).toBe(0)
      },
    }
  }

  test.each(attacks)(
    '%s stop nothing: the place is stepped over as an unreadable message, and the next message is handled',
    async (_, batch, reason) => {
      const { open, produce } = await scene()
      await produce(good('before'))
      await produce(batch())
      await produce(good('behind'))
      const handled: Delivered[] = []
      const subscription = await open().subscribe(groups.processor, [topics.requests], async ({ messages }) => {
        handled.push(...messages)
      })
      const textOf = (message: Delivered | undefined) => Buffer.from(message?.value ?? []).toString()
      await eventually(() => textOf(handled.at(-1)) === 'behind', HANDLED_WITHIN_MS)
      expect(subscription.state()).toBe('running')
      expect(handled.map(textOf)).toEqual(['before', expect.any(String), 'behind'])
      const [, poison] = handled
      if (!poison) throw new Error('There are three.')
      expect(poison).toMatchObject({ key: null, headers: [], unreadable: expect.stringMatching(reason) })
      // Its dead letter is within the limits of its topic.
      const [position] = await open().publish([encodeDeadLetter(poison, groups.processor, String(reason))])
      expect(position?.offset).toBe(0)
      await eventually(() => subscription.lag().every(({ lag }) => lag === 0))
    },
    TIMEOUT_MS,
  )

  test(
    'a transaction that its program leaves open, for up to 15 minutes, holds up no message behind it',
    async () => {
      const { open, produce, name, kafka } = await scene()
      await produce(good('before'))
      const producer = kafka.producer({
        transactionalId: name('open'),
        transactionTimeout: 60_000,
        maxInFlightRequests: 1,
      })
      await producer.connect()
      closing.push(() => producer.disconnect())
      const transaction = await producer.transaction()
      await transaction.send({ topic: name(topics.requests), messages: [{ partition: 0, value: 'open' }] })
      closing.push(() => transaction.abort())
      await produce(good('behind'))
      const handled: string[] = []
      await open().subscribe(groups.processor, [topics.requests], async ({ messages }) => {
        handled.push(...messages.map(({ value }) => String(value)))
      })
      await eventually(() => handled.includes('behind'), HANDLED_WITHIN_MS)
      expect(handled).toEqual(['before', 'open', 'behind'])
    },
    TIMEOUT_MS,
  )
})

describe.skipIf(url === '')('on a topic that the driver made', () => {
  test(
    'Kafka unpacks what comes packed, and refuses what is then larger than the topic takes',
    async () => {
      const namespace = `test-${Bun.randomUUIDv7()}`
      const topic = `${namespace}.${topics.requests}`
      const broker = openQuietly({ url, namespace })
      try {
        const handled: Delivered[] = []
        await broker.subscribe(groups.processor, [topics.requests], async ({ messages }) => {
          handled.push(...messages)
        })
        const large = batchOf([{ value: Buffer.alloc(3 * MIB) }], gzipSync, 1)
        expect(await produceRaw(url, topic, 0, large)).toBe(MESSAGE_TOO_LARGE)
        for (const [codec, pack] of [gzipSync, snappy, lz4, zstdCompressSync].entries())
          expect(await produceRaw(url, topic, 0, batchOf([small], pack, codec + 1))).toBe(0)
        await eventually(() => handled.length === 4)
        expect(handled.map(({ value }) => String(value))).toEqual(Array(4).fill('small'))
      } finally {
        await broker.close()
        const admin = new Kafka({ brokers: [new URL(url).host], logLevel: logLevel.NOTHING }).admin()
        await admin.connect()
        await removeTopics(admin, namespace)
      }
    },
    TIMEOUT_MS,
  )
})

/** A broker that is used for many runs must not fill up with topics. */
async function removeTopics(admin: Admin, namespace: string): Promise<void> {
  const names = (await admin.listTopics()).filter((name) => name.startsWith(`${namespace}.`))
  await admin.deleteTopics({ topics: names })
  await admin.disconnect()
}
