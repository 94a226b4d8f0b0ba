import { expect, test } from 'bun:test'
import * as fc from 'fast-check'
import { Partitioners } from 'kafkajs'
import { murmur2, partitionOf } from './partition-of.ts'

// From Kafka's own tests (org.apache.kafka.common.utils.UtilsTest).
test.each([
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
])('murmur2 of %s is what Kafka computes', (text, hash) => {
  expect(murmur2(Buffer.from(text))).toBe(hash)
})

test('every key goes to the partition that the default partitioner of Kafka clients chooses', () => {
  const partitioner = Partitioners.DefaultPartitioner()
  const metadata = (count: number) =>
    Array.from({ length: count }, (_, partitionId) => ({
      partitionId,
      partitionErrorCode: 0,
      leader: 1,
      replicas: [1],
      isr: [1],
    }))
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 64 }), fc.integer({ min: 1, max: 12 }), (key, count) => {
      const chosen = partitioner({
        topic: 'any',
        partitionMetadata: metadata(count),
        message: { key: Buffer.from(key), value: null },
      })
      expect(partitionOf(key, count)).toBe(chosen)
    }),
  )
})
