import { promisify } from 'node:util'
import { gunzip } from 'node:zlib'
import type { KafkaMessage } from 'kafkajs'
import { MAX_HEADERS } from '../../messages/topics.ts'

/** The most that is unpacked of one batch: twice what the largest topic takes. */
export const MAX_UNPACKED_BYTES = 4 * 1024 * 1024
/** More do not fit into a batch if each is a message of ours, and each takes memory of its own. */
export const MAX_BATCH_RECORDS = 20_000

const MAGIC = 2
const MAGIC_AT = 16
/** Of the base offset and the length, which every format of a batch begins with. */
const FRAME_BYTES = 12
const HEAD_BYTES = 61
const MAX_VARINT_BYTES = 10
/** The end of the year 9999. Later times, and those before 1970, have no text that others can read. */
const MAX_TIME_MS = 253_402_300_799_999
const CODECS = ['none', 'gzip', 'snappy', 'lz4', 'zstd']

const unpackGzip = promisify(gunzip)

interface Head {
  readonly baseOffset: number
  readonly lastOffsetDelta: number
  readonly codec: number
  readonly firstTimestampMs: number
  /** Set where the broker's clock counts, and not the producer's. */
  readonly appendedMs: number | undefined
  readonly count: number
  /** What kafkajs needs to leave out aborted transactions and control records. */
  readonly isControlRecord: boolean
  readonly batchContext: { readonly producerId: string; readonly inTransaction: boolean }
}

/**
 * The records in the answer to a fetch, in place of kafkajs' own decoder (patches/kafkajs@2.2.4.patch). Never rejects, and
 * each batch has at least one record, so that a fetch always leads on:
 *
 * - A batch that cannot be read is one record, with the batch's last offset, its bytes and a `fault`, a sentence that says why.
 * - So is a single message with too many headers.
 * - What a batch lacks at its end, since its topic was compacted, is a control record, which kafkajs leaves out.
 *
 * Stops before a batch once there are more bytes or records than one batch may have: the next fetch begins there.
 */
export async function decodeRecordBatches(bytes: Buffer): Promise<KafkaMessage[]> {
  const records: KafkaMessage[] = []
  let unpackedBytes = 0
  for (let at = 0; at + FRAME_BYTES + 5 <= bytes.length; ) {
    const length = bytes.readInt32BE(at + 8)
    // A fetch is cut at its size: the next one brings the whole batch.
    if (length > bytes.length - at - FRAME_BYTES) break
    // A length that cannot be leaves no way to find the next batch.
    const batch = bytes.subarray(at, length < 5 ? bytes.length : at + FRAME_BYTES + length)
    if (unpackedBytes > MAX_UNPACKED_BYTES || records.length > MAX_BATCH_RECORDS) break
    const decoded = await decodeBatch(batch)
    for (const record of decoded.records) records.push(record)
    unpackedBytes += decoded.unpackedBytes
    at += batch.length
  }
  return records
}

async function decodeBatch(batch: Buffer): Promise<{ records: KafkaMessage[]; unpackedBytes: number }> {
  const head = readHead(batch)
  try {
    if (batch[MAGIC_AT] !== MAGIC || batch.length < HEAD_BYTES)
      throw new Error('It is a batch of messages in a format that Kafka no longer takes.')
    if (head.count > MAX_BATCH_RECORDS)
      throw new Error(`It is a batch of ${head.count} messages; at most ${MAX_BATCH_RECORDS} are read at once.`)
    const body = await unpack(batch.subarray(HEAD_BYTES), head.codec)
    return { records: decodeRecords(body, head), unpackedBytes: body.length }
  } catch (error) {
    const fault = error instanceof Error ? error.message : String(error)
    return { records: [newRecord(head, head.lastOffsetDelta, 0, { raw: batch, fault })], unpackedBytes: batch.length }
  }
}

function readHead(batch: Buffer): Head {
  const hasHead = batch[MAGIC_AT] === MAGIC && batch.length >= HEAD_BYTES
  const attributes = hasHead ? batch.readInt16BE(21) : 0
  return {
    baseOffset: Number(batch.readBigInt64BE(0)),
    lastOffsetDelta: hasHead ? Math.max(0, batch.readInt32BE(23)) : 0,
    codec: attributes & 0x07,
    firstTimestampMs: hasHead ? Number(batch.readBigInt64BE(27)) : 0,
    appendedMs: hasHead && attributes & 0x08 ? Number(batch.readBigInt64BE(35)) : undefined,
    count: hasHead ? batch.readInt32BE(57) : 0,
    isControlRecord: (attributes & 0x20) !== 0,
    batchContext: {
      producerId: hasHead ? batch.readBigInt64BE(43).toString() : '-1',
      inTransaction: (attributes & 0x10) !== 0,
    },
  }
}

async function unpack(packed: Buffer, codec: number): Promise<Buffer> {
  if (codec === 0) return packed
  if (codec !== 1)
    throw new Error(`It is a batch packed with ${CODECS[codec] ?? `codec ${codec}`}, which cannot be unpacked here.`)
  try {
    return await unpackGzip(packed, { maxOutputLength: MAX_UNPACKED_BYTES })
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ERR_BUFFER_TOO_LARGE')
      throw new Error(`It is a batch that has more than ${MAX_UNPACKED_BYTES} bytes unpacked.`)
    throw new Error('It is a batch that says it is packed with gzip, and cannot be unpacked.')
  }
}

/** @throws Error that says what contradicts the batch */
function decodeRecords(body: Buffer, head: Head): KafkaMessage[] {
  const { count, lastOffsetDelta } = head
  const records: KafkaMessage[] = []
  const reader = createReader(body)
  let lastDelta = -1
  for (let index = 0; index < count; index++) {
    const length = reader.varint()
    const start = reader.position()
    const end = start + length
    if (!(length > 0 && end <= body.length)) throw new Error('It is a batch that ends inside a message.')
    reader.moveTo(start + 1)
    const timestampDelta = reader.varint()
    const offsetDelta = reader.varint()
    if (!(offsetDelta > lastDelta && offsetDelta <= lastOffsetDelta))
      throw new Error('It is a batch with a message whose offset is not after the one before and within the batch.')
    lastDelta = offsetDelta
    const key = reader.bytes(end)
    const value = reader.bytes(end)
    const headerCount = reader.varint()
    const raw = body.subarray(start, end)
    if (headerCount > MAX_HEADERS) {
      const fault = `It is a message with ${headerCount} headers; no topic takes more than ${MAX_HEADERS}.`
      records.push(newRecord(head, offsetDelta, timestampDelta, { raw, fault }))
      reader.moveTo(end)
      continue
    }
    const headers: Record<string, Buffer | Buffer[]> = Object.create(null)
    for (let header = 0; header < headerCount; header++) {
      const name = (reader.bytes(end) ?? raw.subarray(0, 0)).toString('utf8')
      // One without a value (null), which only other programs write, reads as empty.
      const bytes = reader.bytes(end) ?? raw.subarray(0, 0)
      const others = headers[name]
      if (others === undefined) headers[name] = bytes
      else if (Array.isArray(others)) others.push(bytes)
      else headers[name] = [others, bytes]
    }
    if (headerCount < 0 || reader.position() !== end)
      throw new Error('It is a batch with a message that is not as long as it says.')
    records.push(newRecord(head, offsetDelta, timestampDelta, { key, value, headers, raw }))
  }
  if (count < 0 || reader.position() !== body.length)
    throw new Error('It is a batch that holds another number of messages than it says.')
  if (lastDelta < lastOffsetDelta)
    records.push(Object.assign(newRecord(head, lastOffsetDelta, 0, {}), { isControlRecord: true }))
  return records
}

function newRecord(
  { baseOffset, firstTimestampMs, appendedMs, isControlRecord, batchContext }: Head,
  offsetDelta: number,
  timestampDelta: number,
  content: Partial<Pick<KafkaMessage, 'key' | 'value' | 'raw' | 'fault'>> & {
    readonly headers?: Record<string, Buffer | Buffer[]>
  },
) {
  const timestampMs = appendedMs ?? firstTimestampMs + timestampDelta
  return {
    offset: String(baseOffset + offsetDelta),
    timestamp: String(Math.min(Math.max(timestampMs, 0), MAX_TIME_MS)),
    attributes: 0,
    key: null,
    value: null,
    headers: {},
    isControlRecord: isControlRecord && content.fault === undefined,
    batchContext,
    ...content,
  }
}

/** Reads the numbers and lengths of records. Each function throws where the bytes are not what they must be. */
function createReader(body: Buffer) {
  let at = 0

  /** Zigzag, seven bits a byte. Exact up to 2^53: only a time can be more, and has a bound of its own. */
  function varint(): number {
    const isNegative = ((body[at] ?? 0) & 1) === 1
    let value = 0
    let factor = 1
    for (let count = 0; count < MAX_VARINT_BYTES; count++) {
      const byte = body[at++]
      if (byte === undefined) break
      value += (byte & 0x7f) * factor
      factor *= 128
      if (byte < 0x80) return isNegative ? -Math.floor(value / 2) - 1 : Math.floor(value / 2)
    }
    throw new Error('It is a batch with a number that has no end.')
  }

  return {
    position: () => at,
    moveTo(position: number) {
      at = position
    },
    varint,
    /** Null where the length is -1. */
    bytes(end: number): Buffer | null {
      const length = varint()
      if (length === -1) return null
      const from = at
      at += length
      if (!(length >= 0 && at <= end))
        throw new Error('It is a batch with a message whose parts are longer than itself.')
      return body.subarray(from, at)
    },
  }
}
