import { connect } from 'node:net'
import { eventually } from './eventually.ts'

/** A record as any program may write it. By default it has the offset of its place in the batch, and nothing in it. */
export interface RawRecord {
  readonly key?: Uint8Array | null
  readonly value?: Uint8Array | null
  readonly headers?: readonly (readonly [name: Uint8Array, value: Uint8Array | null])[]
  readonly offsetDelta?: number
  readonly timestampDelta?: bigint
  /** What it says of the number of its headers. */
  readonly headerCount?: number
}

/** For tests: the records of a batch, before they are packed. */
export function encodeRecords(records: readonly RawRecord[]): Buffer {
  return Buffer.concat(
    records.map((record, index) => {
      const { key = null, value = null, headers = [], offsetDelta = index, timestampDelta = 0n } = record
      const parts = [Buffer.from([0]), varint(timestampDelta), varint(offsetDelta), sized(key), sized(value)]
      parts.push(varint(record.headerCount ?? headers.length))
      for (const [name, bytes] of headers) parts.push(sized(name), sized(bytes))
      const body = Buffer.concat(parts)
      return Buffer.concat([varint(body.length), body])
    }),
  )
}

/** For tests: a batch of Kafka's format 2 around records, packed or not, with a right checksum, whatever it says. */
export function encodeBatch(
  records: Uint8Array,
  {
    count,
    lastOffsetDelta = count - 1,
    attributes = 0,
    timestampMs = BigInt(Date.now()),
    baseOffset = 0n,
  }: {
    readonly count: number
    readonly lastOffsetDelta?: number
    /** The codec in the lowest three bits: 1 gzip, 2 snappy, 3 lz4, 4 zstd. */
    readonly attributes?: number
    readonly timestampMs?: bigint
    readonly baseOffset?: bigint
  },
): Buffer {
  const body = Buffer.alloc(40)
  body.writeInt16BE(attributes, 0)
  body.writeInt32BE(lastOffsetDelta, 2)
  body.writeBigInt64BE(timestampMs, 6)
  body.writeBigInt64BE(timestampMs, 14)
  // No idempotent producer.
  body.writeBigInt64BE(-1n, 22)
  body.writeInt16BE(-1, 30)
  body.writeInt32BE(-1, 32)
  body.writeInt32BE(count, 36)
  const checked = Buffer.concat([body, records])
  const head = Buffer.alloc(21)
  head.writeBigInt64BE(baseOffset, 0)
  head.writeInt32BE(9 + checked.length, 8)
  head.writeInt32BE(-1, 12)
  head.writeInt8(2, 16)
  head.writeUInt32BE(crc32c(checked), 17)
  return Buffer.concat([head, checked])
}

/** Kafka's errors while a new topic has no leader yet. */
const NOT_READY = [3, 5, 6]

/**
 * For tests: sends a batch to a Kafka of one node as it is. Resolves with the broker's error code; 0: the broker holds it.
 * @throws Error where the broker closes the connection instead of answering
 */
export async function produceRaw(url: string, topic: string, partition: number, batch: Uint8Array): Promise<number> {
  let code = 0
  await eventually(async () => {
    code = await send(url, topic, partition, batch)
    return !NOT_READY.includes(code)
  })
  return code
}

async function send(url: string, topic: string, partition: number, batch: Uint8Array): Promise<number> {
  const name = Buffer.from(topic)
  const request = Buffer.concat([
    // Produce, version 7; no transaction; acks of all replicas; one topic with one partition.
    Buffer.from([0, 0, 0, 7, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    int32(30_000),
    int32(1),
    Buffer.from([name.length >> 8, name.length & 0xff]),
    name,
    int32(1),
    int32(partition),
    int32(batch.byteLength),
    batch,
  ])
  const { hostname, port } = new URL(url)
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  let answer = Buffer.alloc(0)
  const socket = connect({ host: hostname, port: Number(port) }, () => {
    socket.write(int32(request.length))
    socket.write(request)
  })
  socket.on('data', (bytes: Buffer) => {
    answer = Buffer.concat([answer, bytes])
    // Length, correlation, one topic with its name, one partition: then the error.
    const at = 4 + 4 + 4 + 2 + name.length + 4 + 4
    if (answer.length >= at + 2) resolve(answer.readInt16BE(at))
  })
  socket.on('error', reject)
  socket.on('close', () => reject(new Error('The broker closed the connection.')))
  return promise.finally(() => socket.destroy())
}

/** For tests: packs up to 64 KiB as Java's Snappy does, in one block of one literal, which makes it no smaller. */
export function snappy(bytes: Uint8Array): Buffer {
  const literal = Buffer.from([61 << 2, (bytes.length - 1) & 0xff, (bytes.length - 1) >> 8])
  // The length is a number of seven bits a byte, but no zigzag one.
  const length = bytes.length % 2 === 0 ? varint(bytes.length / 2) : varint(-(bytes.length + 1) / 2)
  const block = Buffer.concat([length, literal, bytes])
  const head = Buffer.from([0x82, ...Buffer.from('SNAPPY'), 0, 0, 0, 0, 1, 0, 0, 0, 1])
  return Buffer.concat([head, int32(block.length), block])
}

/** For tests: packs up to 64 KiB as LZ4 does, in one block, which makes it no smaller. */
export function lz4(bytes: Uint8Array): Buffer {
  const head = Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82])
  const length = Buffer.from([bytes.length & 0xff, (bytes.length >> 8) & 0xff, bytes.length >> 16, 0x80])
  return Buffer.concat([head, length, bytes, Buffer.alloc(4)])
}

/** A number as Kafka's records hold it: zigzag, seven bits a byte. */
export function varint(value: number | bigint): Buffer {
  const bytes: number[] = []
  let rest = BigInt.asUintN(64, (BigInt(value) << 1n) ^ (BigInt(value) >> 63n))
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80)
  bytes.push(Number(rest))
  return Buffer.from(bytes)
}

function sized(bytes: Uint8Array | null): Buffer {
  return bytes === null ? varint(-1) : Buffer.concat([varint(bytes.byteLength), bytes])
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

const crcTable = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  return crc >>> 0
})

function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff
  for (const byte of bytes) crc = (crcTable[(crc ^ byte) & 0xff] ?? 0) ^ (crc >>> 8)
  return (crc ^ 0xffffffff) >>> 0
}
