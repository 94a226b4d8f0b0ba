import { makeIndexes, mongoDatabase } from '@posta/common/storage/mongo-database.ts'
import { mongoResults, type ResultDocument, resultIndexes } from '../results/mongo.ts'

/** Processor's store in the database that a `mongodb://…/name` URL names. */
export function openMongo(url: string) {
  const { collections, ping, close } = mongoDatabase({
    url,
    socketTimeoutMs: 10_000,
    prepare: async (database) => ({
      results: await makeIndexes(database.collection<ResultDocument>('results'), resultIndexes),
    }),
  })
  return { results: mongoResults(async () => (await collections()).results), ping, close }
}
