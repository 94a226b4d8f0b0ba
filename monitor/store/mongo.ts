import { makeIndexes, mongoDatabase } from '@posta/common/storage/mongo-database.ts'
import { type CheckpointDocument, checkpointIndexes, mongoCheckpoints } from '../audit/mongo.ts'
import {
  type DeadLetterDocument,
  type DecisionDocument,
  deadLetterIndexes,
  decisionIndexes,
  mongoDeadLetters,
} from '../dead-letters/mongo.ts'
import { type EventDocument, eventIndexes, mongoEvents } from '../events/mongo.ts'

/** Monitor's store in the database that a `mongodb://…/name` URL names. */
export function openMongo(url: string) {
  const { collections, ping, close } = mongoDatabase({
    url,
    socketTimeoutMs: 30_000,
    prepare: async (database) => ({
      events: await makeIndexes(database.collection<EventDocument>('events'), eventIndexes),
      deadLetters: await makeIndexes(database.collection<DeadLetterDocument>('deadLetters'), deadLetterIndexes),
      decisions: await makeIndexes(database.collection<DecisionDocument>('deadLetterDecisions'), decisionIndexes),
      checkpoints: await makeIndexes(database.collection<CheckpointDocument>('checkpoints'), checkpointIndexes),
    }),
  })
  return {
    events: mongoEvents(async () => (await collections()).events),
    deadLetters: mongoDeadLetters(collections),
    checkpoints: mongoCheckpoints(async () => (await collections()).checkpoints),
    ping,
    close,
  }
}
