import { freshDatabase } from '@posta/common/testing/fresh-store.ts'
import { openMongo } from '../store/mongo.ts'
import { describeRuns } from './runs.suite.ts'

const serverUrl = process.env.TEST_MONGO_URL

// FerretDB does not update atomically under races.
if (serverUrl)
  describeRuns('the MongoDB store', { fresh: () => freshDatabase(serverUrl, openMongo), atomicUpdates: false })
