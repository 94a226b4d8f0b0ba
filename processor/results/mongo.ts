import { insertInOrder, makeIndexes, mongoDatabase, toDocument, withId } from '@posta/common/storage/mongo-database.ts'
import type { IndexDescription } from 'mongodb'
import * as v from 'valibot'
import { Result, ResultSummary, type Results, userDayKey } from './results.ts'

/** A result with its id as `_id`, so that an operation has only one. */
interface ResultDocument {
  readonly _id: string
  readonly [member: string]: unknown
}

/** One for each query. `_id` has its own. */
const indexes: readonly IndexDescription[] = [
  { key: { user: 1, day: 1, countedUsdE8: 1 } },
  { key: { user: 1, completedAt: -1, _id: -1 } },
  { key: { completedAt: -1, _id: -1 } },
  { key: { type: 1, status: 1, 'rates.base': 1, 'rates.date': -1, completedAt: -1 } },
]

const withoutRates = { projection: { rates: 0 } }

/** Results in the database that a `mongodb://…/name` URL names. */
export function openMongoResults(url: string): Results {
  const database = mongoDatabase({
    url,
    socketTimeoutMs: 10_000,
    async prepare(opened) {
      const collection = opened.collection<ResultDocument>('results')
      await makeIndexes(collection, indexes)
      return collection
    },
  })
  const results = database.collections

  return {
    async find(ids) {
      const documents = await (await results()).find({ _id: { $in: [...ids] } }, withoutRates).toArray()
      return new Map(documents.map((document) => [document._id, toSummary(document)]))
    },

    async countedUsdE8(userDays) {
      const sums = await (await results())
        .aggregate([
          { $match: { user: { $in: userDays.map(({ user }) => user) }, day: { $in: userDays.map(({ day }) => day) } } },
          { $group: { _id: { user: '$user', day: '$day' }, counted: { $sum: '$countedUsdE8' } } },
        ])
        .toArray()
      const counted = new Map(v.parse(Sums, sums).map(({ _id, counted }) => [userDayKey(_id), counted]))
      return userDays.map((userDay) => counted.get(userDayKey(userDay)) ?? 0)
    },

    append: async (appended) => insertInOrder(await results(), appended.map(toDocument)),

    async replaceDeadLettered(result) {
      const { _id, ...members } = toDocument(result)
      const filter = { _id, status: 'failed', 'error.code': 'dead-lettered' }
      return (await (await results()).replaceOne(filter, members)).modifiedCount === 1
    },

    async get(id) {
      const document = await (await results()).findOne({ _id: id })
      return document ? v.parse(Result, withId(document)) : undefined
    },

    async page({ user, limit, before }) {
      const older = before && {
        completedAt: { $lte: before.completedAt },
        $or: [{ completedAt: { $lt: before.completedAt } }, { _id: { $lt: before.id } }],
      }
      const documents = await (await results())
        .find({ ...(user !== undefined && { user }), ...older }, withoutRates)
        .sort({ completedAt: -1, _id: -1 })
        .limit(limit)
        .toArray()
      return documents.map(toSummary)
    },

    async newestRates(base) {
      const document = await (await results()).findOne(
        { type: 'store-rates', status: 'succeeded', 'rates.base': base },
        { sort: { 'rates.date': -1, completedAt: -1 } },
      )
      if (!document) return undefined
      const { rates: table, completedAt } = v.parse(Result, withId(document))
      return { table, completedAt }
    },

    async deleteBefore(completedAt, atMost) {
      const collection = await results()
      const oldest = await collection
        .find({ completedAt: { $lt: completedAt } }, { projection: { _id: 1 } })
        .sort({ completedAt: 1, _id: 1 })
        .limit(atMost)
        .toArray()
      if (oldest.length === 0) return 0
      // Another member may have deleted some of them meanwhile. Whether there may be more depends on how many were found.
      await collection.deleteMany({ _id: { $in: oldest.map(({ _id }) => _id) }, completedAt: { $lt: completedAt } })
      return oldest.length
    },

    ping: database.ping,
    close: database.close,
  }
}

const Sums = v.array(v.object({ _id: v.object({ user: v.string(), day: v.string() }), counted: v.number() }))

function toSummary(document: ResultDocument): ResultSummary {
  return v.parse(ResultSummary, withId(document))
}
