import { expect, test } from 'bun:test'
import type { EachBatchPayload, KafkaMessage } from 'kafkajs'
import { topics } from '../../messages/topics.ts'
import { createLog } from '../../service/log.ts'
import { eventually } from '../../testing/eventually.ts'
import { encodeBatch, encodeRecords } from '../../testing/raw-records.ts'
import { createAssignment } from './assignment.ts'
import { decodeRecordBatches } from './record-batches.ts'

const batchOf = (text: string, baseOffset: bigint, attributes = 0) =>
  encodeBatch(encodeRecords([{ value: Buffer.from(text) }]), { count: 1, baseOffset, attributes })
const ZSTD = 4

/** An assignment, and what its handler was given. `fetch` gives it a fetch of these batches, as kafkajs does. */
function scene() {
  const handled: string[] = []
  const resolved: string[] = []
  const assignment = createAssignment({
    topicByName: new Map([[topics.requests, topics.requests]]),
    async handle({ messages }) {
      handled.push(...messages.map(({ value, unreadable }) => (unreadable ? 'unreadable' : String(value))))
    },
    draining: new Map(),
    log: createLog('test', 'silent'),
  })
  const payload = (messages: KafkaMessage[]): EachBatchPayload => ({
    batch: {
      topic: topics.requests,
      partition: 0,
      highWatermark: '9',
      messages,
      isEmpty: () => false,
      firstOffset: () => messages[0]?.offset ?? null,
      lastOffset: () => messages.at(-1)?.offset ?? '',
      offsetLag: () => '0',
      offsetLagLow: () => '0',
    },
    resolveOffset: (offset) => void resolved.push(offset),
    heartbeat: async () => {},
    pause: () => () => {},
    commitOffsetsIfNecessary: async () => {},
    uncommittedOffsets: () => ({ topics: [] }),
    isRunning: () => true,
    isStale: () => false,
  })
  return {
    resolved,
    async fetch(...batches: readonly Buffer[]) {
      assignment.receive(payload(await decodeRecordBatches(Buffer.concat(batches))))
      await eventually(() => !assignment.isBusy())
      return handled
    },
  }
}

test('what is unreadable is handed on when a second fetch brings the same bytes, and what is before it at once', async () => {
  const { fetch, resolved } = scene()
  const [before, poison, behind] = [batchOf('0', 0n), batchOf('1', 1n, ZSTD), batchOf('2', 2n)]
  expect(await fetch(before, poison, behind)).toEqual(['0'])
  expect(resolved).toEqual(['0'])
  expect(await fetch(poison, behind)).toEqual(['0', 'unreadable', '2'])
  expect(resolved).toEqual(['0', '2'])
})

test('several that are unreadable need one more fetch, not one each', async () => {
  const { fetch, resolved } = scene()
  const poison = [0n, 1n, 2n].map((offset) => batchOf('poison', offset, ZSTD))
  expect(await fetch(...poison)).toEqual([])
  expect(await fetch(...poison)).toEqual(['unreadable', 'unreadable', 'unreadable'])
  expect(resolved).toEqual(['2'])
})

test('what was broken on the way is handed on whole when it comes whole, and never while it differs', async () => {
  const { fetch, resolved } = scene()
  expect(await fetch(batchOf('a fault', 0n, ZSTD))).toEqual([])
  expect(await fetch(batchOf('another', 0n, ZSTD))).toEqual([])
  expect(resolved).toEqual([])
  expect(await fetch(batchOf('whole', 0n))).toEqual(['whole'])
})
