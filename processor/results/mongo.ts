import { type Collection, type IndexSpecification, MongoBulkWriteError, MongoClient } from 'mongodb'
import * as v from 'valibot'
import { Result, ResultSummary, type Results } from './results.ts'

/** A result whose id is the document's `_id`: what makes it one result per operation. */
interface ResultDocument {
  readonly _id: string
  readonly [member: string]: unknown
}

/** One for each query of the port; `_id` has its own. */
const indexes: readonly IndexSpecification[] = [
  { user: 1, day: 1, countedUsdE8: 1 },
  { user: 1, completedAt: -1, _id: -1 },
  { completedAt: -1, _id: -1 },
  { type: 1, status: 1, 'rates.base': 1, 'rates.date': -1, completedAt: -1 },
]

const DUPLICATE_KEY = 11000
/** FerretDB 1.24 goes on behind a duplicate after every hundredth document, ordered or not. */
const MAX_INSERT = 100
const withoutRates = { projection: { rates: 0 } }

/** Results in the database that a `mongodb://…/name` URL names. */
export function openMongoResults(url: string): Results {
  const client = new MongoClient(url, {
    serverSelectionTimeoutMS: 3000,
    connectTimeoutMS: 3000,
    socketTimeoutMS: 10_000,
    waitQueueTimeoutMS: 3000,
    ignoreUndefined: true,
  })
  let prepared: Promise<Collection<ResultDocument>> | undefined

  async function prepare(): Promise<Collection<ResultDocument>> {
    // Said outright: the driver connects by itself only once, and after a failure not again.
    await client.connect()
    const collection = client.db().collection<ResultDocument>('results', {
      // What was answered is on the disks of a majority, and what is read cannot be rolled back.
      writeConcern: { w: 'majority', journal: true },
      readConcern: { level: 'majority' },
    })
    // One at a time: FerretDB 1.24 breaks on several of which two exist.
    for (const index of indexes) await collection.createIndex(index)
    return collection
  }

  /** The collection with its indexes. Where they could not be made the next call tries again. */
  function results(): Promise<Collection<ResultDocument>> {
    prepared ??= prepare().catch((error: unknown) => {
      prepared = undefined
      throw error
    })
    return prepared
  }

  /** Up to the first whose id exists. */
  async function insert(given: readonly Result[]): Promise<number> {
    try {
      return (await (await results()).insertMany(given.map(toDocument), { ordered: true })).insertedCount
    } catch (error) {
      const exists = error instanceof MongoBulkWriteError && error.code === DUPLICATE_KEY
      if (!exists || error.result.getWriteConcernError()) throw error
      return error.insertedCount
    }
  }

  return {
    async find(ids) {
      const documents = await (await results()).find({ _id: { $in: [...ids] } }, withoutRates).toArray()
      return new Map(documents.map((document) => [document._id, toSummary(document)]))
    },

    async countedUsdE8(userDays) {
      const match = {
        user: { $in: [...new Set(userDays.map(({ user }) => user))] },
        day: { $in: [...new Set(userDays.map(({ day }) => day))] },
      }
      const sums = await (await results())
        .aggregate([
          { $match: match },
          { $group: { _id: { user: '$user', day: '$day' }, counted: { $sum: '$countedUsdE8' } } },
        ])
        .toArray()
      const byUserDay = new Map(
        v.parse(Sums, sums).map(({ _id: { user, day }, counted }) => [`${day} ${user}`, counted] as const),
      )
      return userDays.map(({ user, day }) => byUserDay.get(`${day} ${user}`) ?? 0)
    },

    async append(appended) {
      for (let start = 0; start < appended.length; start += MAX_INSERT) {
        const part = appended.slice(start, start + MAX_INSERT)
        const inserted = await insert(part)
        if (inserted < part.length) return start + inserted
      }
      return appended.length
    },

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
      const after = before && {
        completedAt: { $lte: before.completedAt },
        $or: [{ completedAt: { $lt: before.completedAt } }, { _id: { $lt: before.id } }],
      }
      const documents = await (await results())
        .find({ ...(user !== undefined && { user }), ...after }, withoutRates)
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
      // Another member may have deleted some of them meanwhile: what was found tells whether there may be more.
      await collection.deleteMany({ _id: { $in: oldest.map(({ _id }) => _id) }, completedAt: { $lt: completedAt } })
      return oldest.length
    },

    async ping() {
      await results()
      await client.db().command({ ping: 1 })
    },

    async close() {
      await client.close()
    },
  }
}

const Sums = v.array(v.object({ _id: v.object({ user: v.string(), day: v.string() }), counted: v.number() }))

function toDocument({ id, ...members }: Result): ResultDocument {
  return { _id: id, ...members }
}

function withId({ _id, ...members }: ResultDocument): object {
  return { id: _id, ...members }
}

function toSummary(document: ResultDocument): ResultSummary {
  return v.parse(ResultSummary, withId(document))
}
