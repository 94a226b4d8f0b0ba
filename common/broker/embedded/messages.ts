import type { Database } from 'bun:sqlite'
import type { Delivered, Header, Outgoing } from '../../messages/message.ts'
import type { Topic } from '../../messages/topics.ts'

/** A topic has one partition. */
export const PARTITION = 0

const MAX_BATCH_MESSAGES = 500
const MAX_BATCH_BYTES = 1024 * 1024
const DELETE_AT_ONCE = 100

/** The messages of one topic. What changes them is called within a write. */
export interface Messages {
  /** @returns the offset of the first; the others follow. No offset is used twice, whatever has been deleted. */
  append(rows: readonly NewRow[], timestampMs: number): number
  /** The next batch from `offset` on: at most 500 messages and about 1 MiB. */
  from(offset: number): Delivered[]
  /** The offset of the oldest message, or of the next one where there is none. */
  oldest(): number
  /** The offset of the next message. */
  end(): number
  /**
   * Deletes some messages from before `beforeMs`, the oldest first, that every group which ever read the topic has
   * committed. Where no group ever did, they go if they are `unread`. @returns whether there may be more
   */
  deleteSome(which: { readonly beforeMs: number; readonly unread: boolean }): boolean
}

export interface NewRow {
  readonly key: Uint8Array
  readonly headers: string
  readonly value: Uint8Array
}

interface Row extends NewRow {
  readonly offset: number
  readonly timestamp: number
}

export function openMessages(db: Database, topic: Topic): Messages {
  const reserve = db.prepare<{ next: number }, [Topic, number]>(
    `INSERT INTO topic (name, next) VALUES (?, ?)
     ON CONFLICT DO UPDATE SET next = next + excluded.next RETURNING next`,
  )
  const insert = db.prepare<null, [number, number, Uint8Array, string, Uint8Array]>(
    `INSERT INTO "${topic}" (offset, timestamp, key, headers, value) VALUES (?, ?, ?, ?, ?)`,
  )
  const select = db.prepare<Row, [number]>(
    `SELECT offset, timestamp, key, headers, value FROM "${topic}"
     WHERE offset >= ? ORDER BY offset LIMIT ${MAX_BATCH_MESSAGES}`,
  )
  const selectOldest = db.prepare<{ oldest: number | null }, []>(`SELECT min(offset) AS oldest FROM "${topic}"`)
  const selectEnd = db.prepare<{ next: number }, [Topic]>('SELECT next FROM topic WHERE name = ?')
  const selectCommitted = db.prepare<Pick<Row, 'offset' | 'timestamp'>, [Topic, number]>(
    `SELECT offset, timestamp FROM "${topic}"
     WHERE offset < coalesce((SELECT min(next) FROM consumer WHERE topic = ?), ?)
     ORDER BY offset LIMIT ${DELETE_AT_ONCE}`,
  )
  const deleteTo = db.prepare<null, [number]>(`DELETE FROM "${topic}" WHERE offset <= ?`)
  const end = () => selectEnd.get(topic)?.next ?? 0

  return {
    append(rows, timestampMs) {
      const first = (reserve.get(topic, rows.length)?.next ?? 0) - rows.length
      for (const [index, { key, headers, value }] of rows.entries())
        insert.run(first + index, timestampMs, key, headers, value)
      return first
    },
    from(offset) {
      const batch: Delivered[] = []
      let bytes = 0
      for (const { timestamp, headers, ...row } of select.iterate(offset)) {
        bytes += row.key.length + headers.length + row.value.length
        if (batch.length > 0 && bytes > MAX_BATCH_BYTES) break
        batch.push({ topic, partition: PARTITION, ...row, headers: decodeHeaders(headers), timestampMs: timestamp })
      }
      return batch
    },
    oldest: () => selectOldest.get()?.oldest ?? end(),
    end,
    deleteSome({ beforeMs, unread }) {
      const committed = selectCommitted.all(topic, unread ? Number.MAX_SAFE_INTEGER : 0)
      // Processes with different clocks wrote the times, so they need not ascend: the first that must stay is the end.
      const kept = committed.findIndex(({ timestamp }) => timestamp >= beforeMs)
      const last = committed.at(kept === -1 ? -1 : kept - 1)
      if (last && kept !== 0) deleteTo.run(last.offset)
      return kept === -1 && committed.length === DELETE_AT_ONCE
    },
  }
}

/** Headers are JSON text, one character for each byte of a value: what is text can be read with any SQLite tool. */
export function newRow({ key, headers, value }: Outgoing): NewRow {
  const texts = headers.map(([name, bytes]) => [name, Buffer.from(bytes).toString('latin1')])
  return { key: Buffer.from(key), headers: JSON.stringify(texts), value }
}

function decodeHeaders(text: string): Header[] {
  const headers: [string, string][] = JSON.parse(text)
  return headers.map(([name, value]) => [name, Buffer.from(value, 'latin1')])
}
