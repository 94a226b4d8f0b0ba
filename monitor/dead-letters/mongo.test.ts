import { freshMongo } from '../events/fresh.ts'
import { describeDeadLetters } from './dead-letters.suite.ts'

const serverUrl = process.env.TEST_MONGO_URL

if (serverUrl) describeDeadLetters('the MongoDB store', () => freshMongo(serverUrl))
