import { join } from 'node:path'
import type { Delivered } from '@posta/common/broker/broker.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import { link, START } from './chain.ts'
import { createAppend } from './events/append.ts'
import { openEmbedded } from './events/embedded.ts'
import type { Tail } from './events/events.ts'
import { toEvent } from './events/record.ts'
import { createReceive, readMessage } from './receive-events.ts'

const BATCH = 500
const USERS = 1000

/**
 * How fast monitor takes messages in, for the benchmarks: from bytes to durable, chained, indexed events, against the
 * insert alone of rows that are ready, into the same table and indexes, in transactions of the same size. Batch by batch in
 * turn, so that both have the same machine.
 * @param folder an empty one, for two databases.
 */
export async function measureIngest(folder: string, count = 100_000): Promise<{ ingestPerS: number; rawPerS: number }> {
  const [ingested, raw] = ['ingested.db', 'raw.db'].map((name) => openEmbedded(join(folder, name)))
  if (!ingested || !raw) throw new Error('Two stores were opened.')
  const receive = createReceive({
    append: createAppend(ingested.events),
    deadLetters: ingested.deadLetters,
    onStored: () => {},
    deps: { now: Date.now },
  })
  const signal = new AbortController().signal
  let tail: Tail = START
  let ingestMs = 0
  let rawMs = 0
  try {
    for (let first = 0; first < count; first += BATCH) {
      const batch = Array.from({ length: Math.min(BATCH, count - first) }, (_, index) => request(first + index))

      let startedMs = performance.now()
      const received = batch.flatMap((message) => {
        const read = readMessage(message)
        return 'item' in read ? [{ item: read.item, message }] : []
      })
      await receive(received, signal)
      ingestMs += performance.now() - startedMs

      const rows = link(
        tail,
        batch.map((message) => toEvent(message, Date.now())),
      )
      tail = rows.at(-1) ?? tail
      startedMs = performance.now()
      await raw.events.insert(rows)
      rawMs += performance.now() - startedMs
    }
  } finally {
    await ingested.close()
    await raw.close()
  }
  return { ingestPerS: (count / ingestMs) * 1000, rawPerS: (count / rawMs) * 1000 }
}

function request(offset: number): Delivered {
  const operation = Bun.randomUUIDv7()
  const createdAt = new Date().toISOString()
  const { topic, key, value, headers } = encode({
    id: Bun.randomUUIDv7(),
    type: 'posta.operation.requested',
    time: createdAt,
    subject: operation,
    traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
    data: {
      user: `user-${(offset * 7919) % USERS}`,
      operation,
      operationType: 'convert',
      input: { from: 'USD', to: 'ARS', amount: '100.50' },
      rates: { base: 'USD', date: '2026-11-23', source: 'live', rates: [{ code: 'ARS', rate: '1472.5' }] },
      createdAt,
    },
  })
  return { topic, partition: 0, offset, timestampMs: Date.parse(createdAt), key: Buffer.from(key), value, headers }
}
