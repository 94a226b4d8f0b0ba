import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import * as v from 'valibot'
import { partitionOf } from '../../common/broker/kafka/partition-of.ts'
import { topicSettings, topics } from '../../common/messages/topics.ts'
import { isLong } from '../../common/testing/long.ts'
import { encodeBatch, encodeRecords, produceRaw } from '../../common/testing/raw-records.ts'
import { askUntil, call, expectBody } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { deadLettersOf, redrive } from '../testing/dead-letters.ts'
import { kafkaClient } from '../testing/foreign-client.ts'
import { outcomeOf, submitMany } from '../testing/operations.ts'
import { noRealParts, type Parts, realParts } from '../testing/parts.ts'
import { newOperator, newUser, type User } from '../testing/users.ts'

const one = encodeRecords([{ value: Buffer.from('{}') }])
const headers = Array.from({ length: 20_000 }, () => [Buffer.from('h'), Buffer.from('v')] as const)
const mebibytes = (count: number) => gzipSync(encodeRecords([{ value: Buffer.alloc(count * 1024 * 1024) }]))

/** Batches that no handler ever sees: together less than 150 KB. */
const poison = [
  encodeBatch(zstdCompressSync(one), { count: 1, attributes: 4 }),
  encodeBatch(mebibytes(3), { count: 1, attributes: 1 }),
  encodeBatch(mebibytes(50), { count: 1, attributes: 1 }),
  encodeBatch(encodeRecords([{ headers }]), { count: 1 }),
  encodeBatch(encodeRecords([{ offsetDelta: 2 ** 31 - 1 }]), { count: 1 }),
]

const skipped = noRealParts === undefined ? '' : ` (skipped: ${noRealParts})`
// Only a Kafka holds such batches. Nothing writes to the embedded broker but its own `publish`.
describe.skipIf(!isLong || skipped !== '')(`on real parts${skipped}`, () => {
  let parts: Parts
  let system: System
  let ana: User
  let operator: string
  beforeAll(async () => {
    parts = await realParts()
    await createTopicsThatKeepBatches(parts.environment.BROKER_URL ?? '')
    system = await startInProcess(parts.environment)
    ana = await newUser(system.gatewayUrl)
    operator = await newOperator(parts.environment, system.gatewayUrl)
  }, 60_000)
  afterAll(async () => {
    await system.close()
    await parts.dispose()
  }, 30_000)

  test("one who can write to all topics, with 5 batches of 150 KB in all on each, holds up no user's operation, and an operator sees and discards each", async () => {
    const { gatewayUrl, monitorUrl } = system
    const urls = [gatewayUrl, system.processorUrl, monitorUrl]
    for (const topic of Object.values(topics))
      for (const batch of poison) {
        const partition = partitionOf(ana.id, topicSettings[topic].partitions)
        expect(await produceRaw(parts.environment.BROKER_URL ?? '', topic, partition, batch)).toBe(0)
      }

    for (const id of await submitMany(gatewayUrl, ana.token, 3))
      expect(await outcomeOf(gatewayUrl, ana.token, id, 30_000)).toMatchObject({ status: 'succeeded' })

    const count = poison.length * Object.values(topics).length
    const found = await deadLettersOf(monitorUrl, operator, count)
    expect(found).toHaveLength(count)
    for (const topic of Object.values(topics)) {
      const reasons = found.filter((each) => each.topic === topic).map(({ reason }) => reason)
      for (const reason of [/zstd/, /3145\d{3} bytes/, /bytes unpacked/, /20000 headers/, /whose offset/])
        expect(reasons).toContainEqual(expect.stringMatching(reason))
    }
    for (const { id, redrivable } of found) {
      expect(redrivable).toBe(false)
      const refused = await redrive(monitorUrl, operator, id)
      expect(expectBody(refused, 409, v.object({ detail: v.string() })).detail).toMatch(/nothing to redrive/)
      const discard = `${monitorUrl}/dead-letters/${encodeURIComponent(id)}/discard`
      expect(await call('POST', discard, { token: operator, body: { reason: 'Poison.' } })).toMatchObject({
        status: 200,
      })
    }
    for (const url of urls) await askUntil(() => call('GET', `${url}/health/ready`), isHealthy)
  }, 120_000)
})

const isHealthy = ({ body }: { readonly body: unknown }) => v.is(v.object({ status: v.literal('ok') }), body)

/** As a version before this one made them, and as Redpanda keeps them: Kafka would unpack the batches itself. */
async function createTopicsThatKeepBatches(brokerUrl: string): Promise<void> {
  const admin = kafkaClient(brokerUrl).admin()
  await admin.connect()
  await admin.createTopics({
    waitForLeaders: false,
    topics: Object.values(topics).map((topic) => ({
      topic,
      numPartitions: topicSettings[topic].partitions,
      configEntries: [
        { name: 'compression.type', value: 'producer' },
        { name: 'max.message.bytes', value: String(topicSettings[topic].maxMessageBytes + 16 * 1024) },
      ],
    })),
  })
  await admin.disconnect()
}
