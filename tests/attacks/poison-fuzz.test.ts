import { expect, test } from 'bun:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import * as fc from 'fast-check'
import type { Broker } from '../../common/broker/broker.ts'
import { parseBrokerUrl } from '../../common/broker/broker-url.ts'
import { openKafka } from '../../common/broker/kafka/kafka.ts'
import { consume } from '../../common/consumer/consume.ts'
import { decode } from '../../common/messages/envelope.ts'
import { type Group, groups, type Topic, topicSettings, topics } from '../../common/messages/topics.ts'
import { systemDeps } from '../../common/service/deps.ts'
import { createLog } from '../../common/service/log.ts'
import { createMetrics } from '../../common/service/metrics.ts'
import { eventually } from '../../common/testing/eventually.ts'
import { isLong } from '../../common/testing/long.ts'
import {
  encodeBatch,
  encodeRecords,
  lz4,
  produceRaw,
  type RawRecord,
  snappy,
} from '../../common/testing/raw-records.ts'
import { toDeadLetter } from '../../monitor/dead-letters/from-message.ts'
import { kafkaClient } from '../testing/foreign-client.ts'

const url = process.env.TEST_BROKER_URL
/** `POISON_CASES=10000` is the long form. `POISON_SEED` repeats a run. */
const cases = Number(process.env.POISON_CASES ?? 300)
const seed = Number(process.env.POISON_SEED ?? Date.now() % 1e9)
const AT_ONCE = 60
const HANDLED_WITHIN_MS = 60_000

const codecs = [(same: Buffer) => same, gzipSync, snappy, lz4, zstdCompressSync]
/** Of these two a block has no more than 64 KiB. */
const MAX_LITERAL_BYTES = 65_536

const someBytes = fc.uint8Array({ maxLength: 60 })
const header = fc.tuple(someBytes, fc.option(someBytes))
const content = fc.record(
  {
    key: fc.option(someBytes),
    value: fc.option(
      fc.oneof(
        { weight: 20, arbitrary: someBytes },
        { weight: 1, arbitrary: fc.nat(5_000_000).map((length) => new Uint8Array(length)) },
      ),
    ),
    headers: fc.oneof(
      { weight: 20, arbitrary: fc.array(header, { maxLength: 4 }) },
      { weight: 1, arbitrary: fc.tuple(fc.nat(30_000), header).map(([count, one]) => Array(count).fill(one)) },
      { weight: 1, arbitrary: fc.nat(900_000).map((length) => [[new Uint8Array(length).fill(0xff), null] as const]) },
    ),
    timestampDelta: fc.oneof(fc.constant(0n), fc.bigInt({ min: -(2n ** 62n), max: 0n })),
  },
  { requiredKeys: [] },
)
const record: fc.Arbitrary<RawRecord> = fc.oneof(
  { weight: 15, arbitrary: content },
  {
    weight: 1,
    arbitrary: fc
      .tuple(content, fc.oneof(fc.integer({ min: -2, max: 4 }), fc.constantFrom(2 ** 31 - 1, -(2 ** 31))))
      .map(([other, offsetDelta]) => ({ ...other, offsetDelta })),
  },
)
const batch = fc
  .record({
    records: fc.oneof(
      { weight: 20, arbitrary: fc.array(record, { minLength: 1, maxLength: 4 }) },
      { weight: 1, arbitrary: fc.nat(60_000).map((count): RawRecord[] => Array(count + 1).fill({})) },
    ),
    codec: fc.nat(4),
    highBits: fc.constantFrom(0, 0, 0, 8, 0x7f00),
    timestampMs: fc.oneof(fc.constant(undefined), fc.bigInt({ min: -(2n ** 62n), max: BigInt(Date.now()) })),
    // Most of what is changed the broker refuses; it must not be the only one who notices.
    change: fc.oneof(
      { weight: 7, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: fc.tuple(fc.nat(), fc.nat(255)) },
    ),
  })
  .map(({ records, codec, highBits, timestampMs, change }) => {
    const body = encodeRecords(records)
    const fits = body.length <= MAX_LITERAL_BYTES || ![2, 3].includes(codec)
    const packed = Buffer.from((codecs[fits ? codec : 1] ?? gzipSync)(body))
    if (change) packed[change[0] % packed.length] = change[1]
    return encodeBatch(packed, {
      count: records.length,
      attributes: highBits | (fits ? codec : 1),
      ...(timestampMs !== undefined && { timestampMs }),
    })
  })

test.skipIf(!isLong || !url)(
  `behind each of ${cases} random batches that a Kafka holds a good message is handled, in order, and whatever is not handled is a dead letter that monitor can store (seed ${seed})`,
  async () => {
    const brokerUrl = url ?? ''
    const namespace = `test-${Bun.randomUUIDv7()}`
    const topic = `${namespace}.${topics.requests}`
    const { partitions } = topicSettings[topics.requests]
    await createTopicThatKeepsBatches(brokerUrl, topic)
    await using stack = new AsyncDisposableStack()
    stack.defer(() => removeTopics(brokerUrl, namespace))
    const parsed = parseBrokerUrl(brokerUrl, {})
    if ('fault' in parsed || parsed.address.kind !== 'kafka') throw new Error('There is a Kafka.')
    const log = createLog('test', 'silent')
    const broker = openKafka({ address: parsed.address, clientId: 'test', log, namespace })
    stack.defer(() => broker.close())

    /** The numbers of the good messages, by partition, in the order in which they came first. */
    const handled = Array.from({ length: partitions }, () => new Set<number>())
    let again = 0
    const letters = new Set<string>()
    const consumers = [
      start(broker, groups.processor, topics.requests, (text, partition) => {
        const numbers = handled[partition]
        if (numbers?.has(Number(text))) again++
        numbers?.add(Number(text))
      }),
      start(broker, groups.monitor, topics.deadLetters, () => {}, letters),
    ]
    for (const consumer of consumers) {
      await consumer.start()
      stack.defer(() => consumer.close())
    }

    let held = 0
    let refused = 0
    const sent = Array.from({ length: partitions }, (): number[] => [])
    const produce = (partition: number, bytes: Buffer) => produceRaw(brokerUrl, topic, partition, bytes)
    for (let first = 0; first < cases; first += AT_ONCE) {
      const some = fc.sample(batch, { numRuns: Math.min(AT_ONCE, cases - first), seed: seed + first })
      await Promise.all(
        sent.map(async (numbers, partition) => {
          for (const [index, bytes] of some.entries()) {
            if (index % partitions !== partition) continue
            if ((await produce(partition, bytes)) === 0) held++
            else refused++
            const text = Buffer.from(String(first + index))
            const good = encodeRecords([{ key: Buffer.from('good'), value: text }])
            expect(await produce(partition, encodeBatch(good, { count: 1 }))).toBe(0)
            numbers.push(first + index)
          }
        }),
      )
      await eventually(
        () => sent.every((numbers, partition) => handled[partition]?.size === numbers.length),
        HANDLED_WITHIN_MS,
      )
    }
    expect(handled.map((numbers) => [...numbers])).toEqual(sent)
    expect(held).toBeGreaterThan(cases / 3)
    // Each of these batches is at least one dead letter.
    await eventually(() => letters.size >= held, HANDLED_WITHIN_MS)
    await eventually(() => consumers.every((each) => each.lag().every(({ lag }) => lag === 0)), HANDLED_WITHIN_MS)
    console.log(`${held} batches were held, ${refused} refused; ${letters.size} dead letters; ${again} came again`)
  },
  60_000 + cases * 1000,
)

/** A consumer that handles what has the key "good"; all else is unreadable. Puts the ids of dead letters into `letters`. */
function start(
  broker: Broker,
  group: Group,
  topic: Topic,
  handle: (text: string, partition: number) => void,
  letters = new Set<string>(),
) {
  return consume({
    name: topic,
    broker,
    group,
    topics: [topic],
    read(message) {
      if (topic === topics.deadLetters) {
        const { id, timestampMs, reason } = toDeadLetter(message, Date.now())
        // As monitor shows it.
        if (new Date(timestampMs).toISOString() && reason.length > 0) letters.add(id)
        return { item: message }
      }
      const decoded = decode(message)
      if (String(message.key) === 'good') return { item: message }
      return 'unreadable' in decoded ? decoded : { unreadable: 'It was not sent by the test.' }
    },
    async handle(received) {
      for (const { item } of received) handle(String(item.value), item.partition)
      return received.map(() => ({ done: true }))
    },
    log: createLog('test', 'silent'),
    metrics: createMetrics('test'),
    deps: systemDeps,
  })
}

/** As Redpanda keeps it: Kafka would unpack the batches itself. */
async function createTopicThatKeepsBatches(brokerUrl: string, topic: string): Promise<void> {
  const { partitions, maxMessageBytes } = topicSettings[topics.requests]
  const admin = kafkaClient(brokerUrl).admin()
  await admin.connect()
  const settings = { 'compression.type': 'producer', 'max.message.bytes': String(maxMessageBytes + 16 * 1024) }
  const configEntries = Object.entries(settings).map(([name, value]) => ({ name, value }))
  await admin.createTopics({ waitForLeaders: false, topics: [{ topic, numPartitions: partitions, configEntries }] })
  await admin.disconnect()
}

async function removeTopics(brokerUrl: string, namespace: string): Promise<void> {
  const admin = kafkaClient(brokerUrl).admin()
  await admin.connect()
  await admin.deleteTopics({ topics: (await admin.listTopics()).filter((name) => name.startsWith(`${namespace}.`)) })
  await admin.disconnect()
}
