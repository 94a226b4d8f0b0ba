import { describe, expect, test } from 'bun:test'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import type { Header } from '../../messages/message.ts'
import { topicSettings, topics } from '../../messages/topics.ts'
import { encodeBatch, encodeRecords, type RawRecord, varint } from '../../testing/raw-records.ts'
import { fromKafka } from './message-format.ts'
import { decodeRecordBatches, MAX_BATCH_RECORDS, MAX_UNPACKED_BYTES } from './record-batches.ts'

const bytes = (text: string) => Buffer.from(text)
const NONE = { key: null, headers: [] }

function batchOf(records: readonly RawRecord[], more: Partial<Parameters<typeof encodeBatch>[1]> = {}) {
  return encodeBatch(encodeRecords(records), { count: records.length, ...more })
}

async function read(...batches: readonly Uint8Array[]) {
  const records = await decodeRecordBatches(Buffer.concat(batches))
  return records.map((record) => fromKafka(topics.requests, 2, record))
}

describe('the records of a fetch', () => {
  test('have the key, value, headers, time and place that their program wrote, packed with gzip or not', async () => {
    const records: RawRecord[] = [
      {
        key: bytes('ana'),
        value: bytes('one'),
        timestampDelta: 5n,
        headers: [
          [bytes('h'), bytes('1')],
          [bytes('h'), null],
        ],
      },
      {
        headers: [
          [bytes('__proto__'), bytes('p')],
          [bytes('constructor'), bytes('c')],
        ],
        timestampDelta: -5n,
      },
    ]
    const whole = { baseOffset: 2n ** 33n, timestampMs: 1_700_000_000_000n }
    const packed = encodeBatch(gzipSync(encodeRecords(records)), { count: 2, attributes: 1, ...whole })
    const headers = (...all: [string, string][]) => all.map(([name, text]): Header => [name, bytes(text)])
    for (const batch of [batchOf(records, whole), packed])
      expect(await read(batch)).toEqual([
        {
          topic: topics.requests,
          partition: 2,
          offset: 2 ** 33,
          timestampMs: 1_700_000_000_005,
          key: bytes('ana'),
          value: bytes('one'),
          headers: headers(['h', '1'], ['h', '']),
        },
        {
          topic: topics.requests,
          partition: 2,
          offset: 2 ** 33 + 1,
          timestampMs: 1_699_999_999_995,
          key: null,
          value: null,
          headers: headers(['__proto__', 'p'], ['constructor', 'c']),
        },
      ])
  })

  test('have a time that every calendar has, whatever their program wrote', async () => {
    const times = [-(2n ** 62n), -1n, 2n ** 62n].map((timestampMs) => batchOf([{}], { timestampMs }))
    const deltas = [-(2n ** 60n), 2n ** 60n].map((timestampDelta) => batchOf([{ timestampDelta }]))
    const found = await read(...times, ...deltas)
    expect(found.map(({ timestampMs }) => new Date(timestampMs).getUTCFullYear())).toEqual([
      1970, 1970, 9999, 1970, 9999,
    ])
  })

  test('of a batch that cannot be read are one, at its last offset, which says why and keeps 64 KiB', async () => {
    const offsets = (...deltas: number[]) => deltas.map((offsetDelta): RawRecord => ({ offsetDelta }))
    const one = encodeRecords([{}])
    const faulty: [RegExp, Buffer][] = [
      [/packed with zstd/, encodeBatch(one, { count: 3, attributes: 4 })],
      [/packed with codec 7/, encodeBatch(one, { count: 3, attributes: 7 })],
      [/says it is packed with gzip/, encodeBatch(one, { count: 3, attributes: 1 })],
      [
        /more than 4194304 bytes/,
        encodeBatch(gzipSync(Buffer.alloc(MAX_UNPACKED_BYTES + 1)), { count: 3, attributes: 1 }),
      ],
      [/20001 messages/, encodeBatch(one, { count: MAX_BATCH_RECORDS + 1, lastOffsetDelta: 2 })],
      [/another number/, encodeBatch(one, { count: -1, lastOffsetDelta: 2 })],
      [/another number/, encodeBatch(Buffer.concat([one, one]), { count: 1, lastOffsetDelta: 2 })],
      [/no end/, encodeBatch(one, { count: 3 })],
      [/ends inside/, encodeBatch(Buffer.concat([varint(1000), Buffer.alloc(9)]), { count: 3 })],
      [/ends inside/, encodeBatch(varint(-7), { count: 3 })],
      [/no end/, encodeBatch(Buffer.alloc(100, 0xff), { count: 3 })],
      [/longer than itself/, encodeBatch(Buffer.from([10, 0, 0, 0, 80, 0, 0]), { count: 3 })],
      [/as long as it says/, encodeBatch(Buffer.from([16, 0, 0, 0, 1, 1, 0, 0, 0]), { count: 3 })],
      [/as long as it says/, batchOf([{ headerCount: -4 }], { lastOffsetDelta: 2 })],
      [/offset/, batchOf(offsets(1, 0, 2))],
      [/offset/, batchOf(offsets(0, 1, 3))],
      [/offset/, batchOf(offsets(-1, 1, 2))],
    ]
    for (const [fault, batch] of faulty) {
      batch.writeBigInt64BE(40n, 0)
      const found = await read(batch, batchOf([{ value: bytes('behind') }], { baseOffset: 43n }))
      const reason = found[0]?.unreadable
      expect(found).toMatchObject([
        { ...NONE, offset: 42, unreadable: expect.stringMatching(fault) },
        { offset: 43, value: bytes('behind') },
      ])
      const hash = new Bun.CryptoHasher('sha256').update(batch).digest('hex')
      expect(reason).toContain(`${batch.length} bytes of it, with the SHA-256 hash ${hash}`)
      expect(found[0]?.value).toEqual(batch.subarray(0, 64 * 1024))
    }
  })

  test('of a format before record batches are one that says so', async () => {
    const old = batchOf([{}])
    old[16] = 1
    const nonsense = Buffer.alloc(100)
    expect(await read(old, nonsense)).toMatchObject([
      { offset: 0, unreadable: expect.stringContaining('no longer takes') },
      { offset: 0, unreadable: expect.stringContaining('no longer takes') },
    ])
  })

  test('with more headers or bytes than their topic takes are unreadable alone', async () => {
    const { maxHeaders, maxMessageBytes } = topicSettings[topics.requests]
    const headers = (count: number) => Array.from({ length: count }, () => [bytes('h'), null] as const)
    const found = await read(
      batchOf([
        { headers: headers(maxHeaders) },
        { headers: headers(maxHeaders + 1) },
        { headerCount: 2 ** 31 - 1 },
        { value: Buffer.alloc(maxMessageBytes) },
        { value: Buffer.alloc(maxMessageBytes + 17 * 1024) },
        // As text it has three bytes for each.
        { headers: [[Buffer.alloc(maxMessageBytes / 2, 0xff), null]] },
        { value: bytes('behind') },
      ]),
    )
    const faults = [
      undefined,
      /257 headers/,
      /2147483647 headers/,
      undefined,
      /1065\d{3} bytes/,
      /1572864 bytes/,
      undefined,
    ]
    for (const [index, fault] of faults.entries())
      if (fault)
        expect(found[index]).toMatchObject({ ...NONE, offset: index, unreadable: expect.stringMatching(fault) })
      else expect(found[index]).not.toHaveProperty('unreadable')
  })

  test('end before a batch that is not whole, and before more than one batch may hold', async () => {
    const whole = batchOf([{}])
    expect(await read(whole, whole.subarray(0, -1))).toHaveLength(1)
    expect(await read(whole, whole.subarray(0, 10))).toHaveLength(1)
    expect(await read(Buffer.alloc(0))).toEqual([])
    const large = encodeBatch(gzipSync(encodeRecords([{ value: Buffer.alloc(MAX_UNPACKED_BYTES - 100) }])), {
      count: 1,
      attributes: 1,
    })
    expect(await read(large, large, large, large)).toHaveLength(2)
    const many = batchOf(Array.from({ length: MAX_BATCH_RECORDS }, () => ({})))
    expect(await read(many, many, many, many)).toHaveLength(2 * MAX_BATCH_RECORDS)
  })

  test('that a compacted topic lacks are made up for, so that a fetch leads past them', async () => {
    const gap = await decodeRecordBatches(batchOf([{ offsetDelta: 3 }], { lastOffsetDelta: 900 }))
    expect(gap).toMatchObject([
      { offset: '3', isControlRecord: false },
      { offset: '900', isControlRecord: true },
    ])
    const empty = await decodeRecordBatches(batchOf([], { lastOffsetDelta: 900 }))
    expect(empty).toMatchObject([{ offset: '900', isControlRecord: true }])
  })
})

test('any bytes lead to records, and a good batch behind a whole one is read as if nothing were before it', async () => {
  const anyBytes = fc.uint8Array({ maxLength: 200 })
  const record = fc.record(
    {
      key: fc.option(anyBytes),
      value: fc.option(anyBytes),
      headers: fc.array(fc.tuple(anyBytes, fc.option(anyBytes)), { maxLength: 5 }),
      offsetDelta: fc.integer({ min: -3, max: 6 }),
      timestampDelta: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
      headerCount: fc.integer({ min: -2, max: 7 }),
    },
    { requiredKeys: [] },
  )
  const batch = fc
    .record({
      records: fc.array(record, { maxLength: 6 }),
      packed: fc.boolean(),
      attributes: fc.integer({ min: -0x8000, max: 0x7fff }),
      wrongBy: fc.constantFrom(0, 0, 0, 1, -1, 2 ** 30),
      changes: fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }),
    })
    .map(({ records, packed, attributes, wrongBy, changes }) => {
      const body = encodeRecords(records)
      const whole = encodeBatch(packed ? gzipSync(body) : body, {
        count: records.length + wrongBy,
        lastOffsetDelta: Math.max(0, records.length - 1),
        attributes: packed ? (attributes & ~7) | 1 : attributes,
      })
      // Anything but the length, the format and the place, which the broker itself writes.
      for (const [at, byte] of changes) if (whole.length > 61) whole[61 + (at % (whole.length - 61))] = byte
      return whole
    })
  const behind = batchOf([{ value: bytes('behind') }], { baseOffset: 1000n })
  await fc.assert(
    fc.asyncProperty(fc.array(fc.oneof(batch, fc.constant(batchOf([{}]))), { maxLength: 4 }), async (batches) => {
      const records = await decodeRecordBatches(Buffer.concat([...batches, behind]))
      expect(records.length).toBeGreaterThan(batches.length)
      expect(records.at(-1)).toMatchObject({ offset: '1000', value: bytes('behind') })
    }),
    { numRuns: 500 },
  )
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (noise) => {
      for (const { offset } of await decodeRecordBatches(Buffer.from(noise))) expect(offset).toMatch(/^-?\d/)
    }),
    { numRuns: 500 },
  )
})
