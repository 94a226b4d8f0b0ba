import { insertInOrder, toDocument, withId } from '@posta/common/storage/mongo-database.ts'
import type { Collection, IndexDescription } from 'mongodb'
import type { Events, MinuteCount, StoredEvent } from './events.ts'

/** An event whose id is the document's `_id`. */
export type EventDocument = Omit<StoredEvent, 'id'> & { readonly _id: string }

/** One for each query of the port; `_id` has its own. The unique one decides which of two writers extends a chain. */
export const eventIndexes: readonly IndexDescription[] = [
  { key: { chain: 1, seq: 1 }, unique: true },
  { key: { timeMs: -1, _id: -1 } },
  { key: { type: 1, timeMs: -1, _id: -1 } },
  { key: { user: 1, timeMs: -1, _id: -1 } },
  { key: { operation: 1, timeMs: -1, _id: -1 } },
  { key: { minute: 1, type: 1, durationMs: 1 } },
]

const PAGE = 500

/** Events in a collection that has `eventIndexes`. */
export function mongoEvents(collection: () => Promise<Collection<EventDocument>>): Events {
  return {
    async insert(events) {
      const inserted = await insertInOrder(await collection(), events.map(toDocument))
      return inserted === events.length ? 'stored' : 'taken'
    },

    async existing(ids) {
      const events = await collection()
      const found = await events.find({ _id: { $in: [...ids] } }, { projection: { _id: 1 } }).toArray()
      return new Set(found.map(({ _id }) => _id))
    },

    async tail(chain) {
      const events = await collection()
      const last = await events.findOne({ chain }, { sort: { seq: -1 } })
      return last ? { seq: last.seq, hash: last.hash } : undefined
    },

    async get(id) {
      const events = await collection()
      const found = await events.findOne({ _id: id })
      return found ? withId(found) : undefined
    },

    async list({ fromMs, untilMs, ...equal }, { limit, before }) {
      const events = await collection()
      const timeMs = {
        ...(fromMs !== undefined && { $gte: fromMs }),
        ...(untilMs !== undefined && { $lt: untilMs }),
        ...(before && { $lte: before.timeMs }),
      }
      const found = await events
        .find({
          ...Object.fromEntries(Object.entries(equal).filter(([, value]) => value !== undefined)),
          ...(Object.keys(timeMs).length > 0 && { timeMs }),
          // With the bound on `timeMs` above this leaves what comes after the position.
          ...(before && { $or: [{ timeMs: { $lt: before.timeMs } }, { _id: { $lt: before.id } }] }),
        })
        .sort({ timeMs: -1, _id: -1 })
        .limit(limit)
        .toArray()
      return found.map(withId)
    },

    async after(seqs, limit) {
      const beyond = [...seqs].map(([chain, seq]) => ({ chain, seq: { $gt: seq } }))
      if (beyond.length === 0) return []
      const events = await collection()
      const found = await events.find({ $or: beyond }).sort({ chain: 1, seq: 1 }).limit(limit).toArray()
      return found.map(withId)
    },

    async *inChainOrder(after) {
      const events = await collection()
      const filter = after
        ? { $or: [{ chain: after.chain, seq: { $gt: after.seq } }, { chain: { $gt: after.chain } }] }
        : {}
      const cursor = events.find(filter).sort({ chain: 1, seq: 1 }).batchSize(PAGE)
      let page: StoredEvent[] = []
      for await (const document of cursor) {
        page.push(withId(document))
        if (page.length < PAGE) continue
        yield page
        page = []
      }
      if (page.length > 0) yield page
    },

    async prune(chain, beforeSeq, atMost) {
      const events = await collection()
      const first = await events.findOne({ chain }, { sort: { seq: 1 }, projection: { seq: 1 } })
      if (!first) return 0
      const endSeq = Math.min(beforeSeq, first.seq + atMost)
      return (await events.deleteMany({ chain, seq: { $lt: endSeq } })).deletedCount
    },

    async countByMinute({ first, last }) {
      const events = await collection()
      const counts = await events
        .aggregate<{ _id: Pick<MinuteCount, 'minute' | 'type'>; count: number }>([
          { $match: { minute: { $gte: first, $lte: last } } },
          { $group: { _id: { minute: '$minute', type: '$type' }, count: { $sum: 1 } } },
        ])
        .toArray()
      return counts.map(({ _id, count }) => ({ ..._id, count }))
    },

    async durations({ first, last }) {
      const events = await collection()
      // Two queries, since FerretDB has no $max, and one accumulator at most in a group.
      const terminal = { minute: { $gte: first, $lte: last }, durationMs: { $gte: 0 } }
      const sums = await events
        .aggregate<{ totalMs: number }>([
          { $match: terminal },
          { $group: { _id: '$type', totalMs: { $sum: '$durationMs' } } },
        ])
        .toArray()
      const longest = await events.findOne(terminal, { sort: { durationMs: -1 }, projection: { durationMs: 1 } })
      return {
        totalMs: sums.reduce((total, { totalMs }) => total + totalMs, 0),
        longestMs: longest?.durationMs ?? 0,
      }
    },
  }
}
