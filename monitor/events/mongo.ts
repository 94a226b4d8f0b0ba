import { insertInOrder, makeIndexes, mongoDatabase, toDocument, withId } from '@posta/common/storage/mongo-database.ts'
import type { Collection, Filter, IndexDescription } from 'mongodb'
import { type CheckpointDocument, checkpointIndexes, mongoCheckpoints } from '../audit/mongo.ts'
import {
  type DeadLetterDocument,
  type DecisionDocument,
  deadLetterIndexes,
  decisionIndexes,
  mongoDeadLetters,
} from '../dead-letters/mongo.ts'
import type { MinuteCount, Store, StoredEvent } from './events.ts'

type Document<Item extends { readonly id: string }> = Omit<Item, 'id'> & { readonly _id: string }
type EventDocument = Document<StoredEvent>

/** One for each query of the port; `_id` has its own. The unique one decides who goes on in a chain. */
const eventIndexes: readonly IndexDescription[] = [
  { key: { chain: 1, seq: 1 }, unique: true },
  { key: { timeMs: -1, _id: -1 } },
  { key: { type: 1, timeMs: -1, _id: -1 } },
  { key: { user: 1, timeMs: -1, _id: -1 } },
  { key: { operation: 1, timeMs: -1, _id: -1 } },
  { key: { minute: 1, type: 1, durationMs: 1 } },
]

const WALK_PAGE = 500

interface Collections {
  readonly events: Collection<EventDocument>
  readonly deadLetters: Collection<DeadLetterDocument>
  readonly decisions: Collection<DecisionDocument>
  readonly checkpoints: Collection<CheckpointDocument>
}

/** Events, dead letters and checkpoints in the database that a `mongodb://…/name` URL names. */
export function openMongo(url: string): Store {
  const database = mongoDatabase({
    url,
    socketTimeoutMs: 30_000,
    async prepare(opened): Promise<Collections> {
      const events = opened.collection<EventDocument>('events')
      const deadLetters = opened.collection<DeadLetterDocument>('deadLetters')
      const decisions = opened.collection<DecisionDocument>('deadLetterDecisions')
      const checkpoints = opened.collection<CheckpointDocument>('checkpoints')
      await makeIndexes(events, eventIndexes)
      await makeIndexes(deadLetters, deadLetterIndexes)
      await makeIndexes(decisions, decisionIndexes)
      await makeIndexes(checkpoints, checkpointIndexes)
      return { events, deadLetters, decisions, checkpoints }
    },
  })
  const { collections } = database

  return {
    events: {
      async insert(stored) {
        const { events } = await collections()
        const inserted = await insertInOrder(events, stored.map(toDocument))
        return inserted === stored.length ? 'stored' : 'taken'
      },

      async existing(ids) {
        const { events } = await collections()
        const found = await events.find({ _id: { $in: [...ids] } }, { projection: { _id: 1 } }).toArray()
        return new Set(found.map(({ _id }) => _id))
      },

      async tail(chain) {
        const { events } = await collections()
        const [last] = await events.find({ chain }).sort({ seq: -1 }).limit(1).toArray()
        return last && { seq: last.seq, hash: last.hash }
      },

      async get(id) {
        const { events } = await collections()
        const found = await events.findOne({ _id: id })
        return found ? withId(found) : undefined
      },

      async list({ fromMs, untilMs, ...equal }, { limit, before }) {
        const { events } = await collections()
        const timeMs = {
          ...(fromMs !== undefined && { $gte: fromMs }),
          ...(untilMs !== undefined && { $lt: untilMs }),
          ...(before && { $lte: before.timeMs }),
        }
        const filter: Filter<EventDocument> = {
          ...given(equal),
          ...(Object.keys(timeMs).length > 0 && { timeMs }),
          // With the bound on `timeMs` above this leaves what comes after the position.
          ...(before && { $or: [{ timeMs: { $lt: before.timeMs } }, { _id: { $lt: before.id } }] }),
        }
        const found = await events.find(filter).sort({ timeMs: -1, _id: -1 }).limit(limit).toArray()
        return found.map(withId)
      },

      async after(seqs, limit) {
        const { events } = await collections()
        const beyond = [...seqs].map(([chain, seq]) => ({ chain, seq: { $gt: seq } }))
        if (beyond.length === 0) return []
        const found = await events.find({ $or: beyond }).sort({ chain: 1, seq: 1 }).limit(limit).toArray()
        return found.map(withId)
      },

      async *inChainOrder(after) {
        const { events } = await collections()
        const filter = after
          ? { $or: [{ chain: after.chain, seq: { $gt: after.seq } }, { chain: { $gt: after.chain } }] }
          : {}
        const cursor = events.find(filter).sort({ chain: 1, seq: 1 }).batchSize(WALK_PAGE)
        try {
          let page: StoredEvent[] = []
          for await (const document of cursor) {
            page.push(withId(document))
            if (page.length < WALK_PAGE) continue
            yield page
            page = []
          }
          if (page.length > 0) yield page
        } finally {
          await cursor.close()
        }
      },

      async prune(chain, beforeSeq, atMost) {
        const { events } = await collections()
        const [first] = await events
          .find({ chain }, { projection: { seq: 1 } })
          .sort({ seq: 1 })
          .limit(1)
          .toArray()
        if (!first) return 0
        const { deletedCount } = await events.deleteMany({
          chain,
          seq: { $lt: Math.min(beforeSeq, first.seq + atMost) },
        })
        return deletedCount
      },

      async countByMinute({ first, last }) {
        const { events } = await collections()
        const counts = await events
          .aggregate<{ _id: Pick<MinuteCount, 'minute' | 'type'>; count: number }>([
            { $match: { minute: { $gte: first, $lte: last } } },
            { $group: { _id: { minute: '$minute', type: '$type' }, count: { $sum: 1 } } },
          ])
          .toArray()
        return counts.map(({ _id: { minute, type }, count }) => ({ minute, type, count }))
      },

      async durations({ first, last }) {
        const { events } = await collections()
        // Two questions: FerretDB has no $max, and answers one accumulator of a group alone.
        const terminal = { minute: { $gte: first, $lte: last }, durationMs: { $gte: 0 } }
        const sums = await events
          .aggregate<{ totalMs: number }>([
            { $match: terminal },
            { $group: { _id: '$type', totalMs: { $sum: '$durationMs' } } },
          ])
          .toArray()
        const [longest] = await events
          .find(terminal, { projection: { _id: 0, durationMs: 1 } })
          .sort({ durationMs: -1 })
          .limit(1)
          .toArray()
        return {
          totalMs: sums.reduce((total, { totalMs }) => total + totalMs, 0),
          longestMs: longest?.durationMs ?? 0,
        }
      },
    },

    deadLetters: mongoDeadLetters(collections),
    checkpoints: mongoCheckpoints(async () => (await collections()).checkpoints),

    ping: database.ping,
    close: database.close,
  }
}

function given(filter: { readonly [member: string]: string | undefined }): { [member: string]: string } {
  return Object.fromEntries(
    Object.entries(filter).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  )
}
