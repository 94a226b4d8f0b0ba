import { insertInOrder, toDocument, withId } from '@posta/common/storage/mongo-database.ts'
import type { Collection, IndexDescription } from 'mongodb'
import * as v from 'valibot'
import { type Allowance, allowanceKey, Outcome, Result, ResultSummary, type Results } from './results.ts'

/** A result with its id as `_id`, so that an operation has only one. */
export interface ResultDocument {
  readonly _id: string
  readonly [member: string]: unknown
}

/** One for each query. `_id` has its own. */
export const resultIndexes: readonly IndexDescription[] = [
  { key: { user: 1, 'counts.limit': 1, 'counts.period': 1, 'counts.amount': 1 } },
  { key: { user: 1, completedAt: -1, _id: -1 } },
  { key: { completedAt: -1, _id: -1 } },
  { key: { type: 1, 'lookup.key': 1, 'lookup.order': -1, completedAt: -1 } },
]

const withoutFacts = { projection: { facts: 0 } }

/** Results in a collection. */
export function mongoResults(results: () => Promise<Collection<ResultDocument>>): Results {
  return {
    async find(ids) {
      const documents = await (await results()).find({ _id: { $in: [...ids] } }, withoutFacts).toArray()
      return new Map(documents.map((document) => [document._id, toSummary(document)]))
    },

    async used(allowances) {
      const anyOf = (member: keyof Allowance) => ({
        $in: [...new Set(allowances.map((allowance) => allowance[member]))],
      })
      const sums = await (await results())
        .aggregate([
          { $match: { user: anyOf('user'), 'counts.limit': anyOf('limit'), 'counts.period': anyOf('period') } },
          {
            $group: {
              _id: { user: '$user', limit: '$counts.limit', period: '$counts.period' },
              used: { $sum: '$counts.amount' },
            },
          },
        ])
        .toArray()
      const used = new Map(v.parse(Sums, sums).map((sum) => [allowanceKey(sum._id), sum.used]))
      return allowances.map((allowance) => used.get(allowanceKey(allowance)) ?? 0)
    },

    append: async (appended) => insertInOrder(await results(), appended.map(toDocument)),

    async replaceDeadLettered(result) {
      const { _id, ...members } = toDocument(result)
      const filter = { _id, status: 'failed', 'error.code': 'dead-lettered' }
      return (await (await results()).replaceOne(filter, members)).modifiedCount === 1
    },

    async settle(outcomes) {
      const operations = outcomes.map((outcome) => {
        const { _id, ...replacement } = toDocument(outcome)
        return { replaceOne: { filter: { _id, status: 'running' }, replacement } }
      })
      if (operations.length > 0) await (await results()).bulkWrite(operations, { ordered: false })
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
        .find({ ...(user !== undefined && { user }), status: { $ne: 'running' }, ...older }, withoutFacts)
        .sort({ completedAt: -1, _id: -1 })
        .limit(limit)
        .toArray()
      return documents.map((document) => v.parse(Outcome, withId(document)))
    },

    async newest(type, key) {
      const newestFirst = { sort: { 'lookup.order': -1, completedAt: -1 } as const }
      const document = await (await results()).findOne({ type, 'lookup.key': key }, newestFirst)
      return document ? v.parse(Result, withId(document)) : undefined
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
  }
}

const Sums = v.array(
  v.object({ _id: v.object({ user: v.string(), limit: v.string(), period: v.string() }), used: v.number() }),
)

function toSummary(document: ResultDocument): ResultSummary {
  return v.parse(ResultSummary, withId(document))
}
