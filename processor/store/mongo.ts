import { makeIndexes, mongoDatabase } from '@posta/common/storage/mongo-database.ts'
import { mongoResults, type ResultDocument, resultIndexes } from '../results/mongo.ts'
import {
  type BeatDocument,
  type InputDocument,
  inputIndexes,
  mongoRuns,
  type PausedTypeDocument,
  type RecordDocument,
  type RunDocument,
  recordIndexes,
  runIndexes,
} from '../runs/mongo.ts'

/** Processor's store in the database that a `mongodb://…/name` URL names. */
export function openMongo(url: string) {
  const { collections, ping, close } = mongoDatabase({
    url,
    socketTimeoutMs: 10_000,
    prepare: async (database) => ({
      results: await makeIndexes(database.collection<ResultDocument>('results'), resultIndexes),
      runs: await makeIndexes(database.collection<RunDocument>('runs'), runIndexes),
      runRecords: await makeIndexes(database.collection<RecordDocument>('runRecords'), recordIndexes),
      runInputs: await makeIndexes(database.collection<InputDocument>('runInputs'), inputIndexes),
      beats: database.collection<BeatDocument>('beats'),
      pausedTypes: database.collection<PausedTypeDocument>('pausedTypes'),
    }),
  })
  return {
    results: mongoResults(async () => (await collections()).results),
    runs: mongoRuns(collections),
    ping,
    close,
  }
}
