import { DUPLICATE_KEY } from '@posta/common/storage/mongo-database.ts'
import { type Collection, type IndexDescription, MongoServerError } from 'mongodb'
import { type Checkpoints, dayOf, type KeptCheckpoint } from './checkpoints.ts'

/** `_id` is the day. */
export type CheckpointDocument = KeptCheckpoint & { readonly _id: number }

export const checkpointIndexes: readonly IndexDescription[] = [{ key: { atMs: -1 } }]

export function mongoCheckpoints(collection: () => Promise<Collection<CheckpointDocument>>): Checkpoints {
  return {
    async keep({ atMs, jwt }) {
      const checkpoints = await collection()
      const isNotLater = { _id: dayOf(atMs), atMs: { $lte: atMs } }
      try {
        await checkpoints.updateOne(isNotLater, { $set: { atMs, jwt } }, { upsert: true })
      } catch (error) {
        // That day has a later one already.
        if (!(error instanceof MongoServerError && error.code === DUPLICATE_KEY)) throw error
      }
    },
    async list({ limit, beforeMs = Number.MAX_SAFE_INTEGER }) {
      const checkpoints = await collection()
      const found = await checkpoints
        .find({ atMs: { $lt: beforeMs } })
        .sort({ atMs: -1 })
        .limit(limit)
        .toArray()
      return found.map(({ atMs, jwt }) => ({ atMs, jwt }))
    },
    async prune(beforeMs) {
      await (await collection()).deleteMany({ atMs: { $lt: beforeMs } })
    },
  }
}
