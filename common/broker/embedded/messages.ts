import type { Database } from 'bun:sqlite'
import type { Delivered, Header, Outgoing } from '../../messages/message.ts'
import type { Topic } from '../../messages/topics.ts'

/** A topic of the embedded broker has but one partition. */
export const PARTITION = 0

/** One topic's messages in the file. What writes must run within a transaction. */
export interface Messages {
  /** The offset of the first; the others follow. No offset is ever used twice, whatever has been deleted. */
  append(rows: readonly NewRow[], timestampMs: number): number
  /** The next batch: what there is at `offset` and after it, at most 500 messages and about 1 MiB. */
  from(offset: number): Delivered[]
  /** The offset of the oldest message, or of the next one where there is none. */
  oldest(): number
  /** The offset of the next message. */
  end(): number
  /**
   * Deletes messages from before `beforeMs` that every group which ever read the topic has done, from the oldest up to
   * the first that must stay. Where no group ever did, all count as done if they are `unread`. True if there may be more.
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

const MAX_BATCH_MESSAGES = 500
const MAX_BATCH_BYTES = 1024 * 1024
const DELETE_AT_ONCE = 100

export function openMessages(db: Database, topic: Topic): Messages {
  const reserve = db.prepare<{ next: number }, [number, Topic]>(
    'UPDATE topic SET next = next + ? WHERE name = ? RETURNING next',
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
  const selectDone = db.prepare<Pick<Row, 'offset' | 'timestamp'>, [Topic, number]>(
    `SELECT offset, timestamp FROM "${topic}"
     WHERE offset < coalesce((SELECT min(next) FROM consumer WHERE topic = ?), ?)
     ORDER BY offset LIMIT ${DELETE_AT_ONCE}`,
  )
  const deleteTo = db.prepare<null, [number]>(`DELETE FROM "${topic}" WHERE offset <= ?`)

  function end(row: { readonly next: number } | null): number {
    if (!row) throw new Error(`The broker's file has lost its topic ${topic}.`)
    return row.next
  }

  return {
    append(rows, timestampMs) {
      const first = end(reserve.get(rows.length, topic)) - rows.length
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
    oldest: () => selectOldest.get()?.oldest ?? end(selectEnd.get(topic)),
    end: () => end(selectEnd.get(topic)),
    deleteSome({ beforeMs, unread }) {
      const done = selectDone.all(topic, unread ? Number.MAX_SAFE_INTEGER : 0)
      // Clocks of several processes wrote the times, so they need not ascend: the first that must stay is the end.
      const kept = done.findIndex(({ timestamp }) => timestamp >= beforeMs)
      const last = done.at(kept === -1 ? -1 : kept - 1)
      if (last && kept !== 0) deleteTo.run(last.offset)
      return kept === -1 && done.length === DELETE_AT_ONCE
    },
  }
}

/** Headers as JSON text, one character for each byte of a value: what is text can be read with any SQLite tool. */
export function newRow({ key, headers, value }: Outgoing): NewRow {
  const texts = headers.map(([name, bytes]) => [name, Buffer.from(bytes).toString('latin1')])
  return { key: Buffer.from(key), headers: JSON.stringify(texts), value }
}

function decodeHeaders(text: string): Header[] {
  const headers: [string, string][] = JSON.parse(text)
  return headers.map(([name, value]) => [name, Buffer.from(value, 'latin1')])
}
