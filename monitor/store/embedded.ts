import { sqliteFile } from '@posta/common/storage/sqlite-file.ts'
import { schema as checkpointsSchema, embeddedCheckpoints } from '../audit/embedded.ts'
import { schema as deadLettersSchema, embeddedDeadLetters } from '../dead-letters/embedded.ts'
import { embeddedEvents, schema as eventsSchema } from '../events/embedded.ts'

/** Monitor's store in one SQLite file. */
export function openEmbedded(path: string) {
  const file = sqliteFile(path, [eventsSchema, deadLettersSchema, checkpointsSchema])
  return {
    events: embeddedEvents(file),
    deadLetters: embeddedDeadLetters(file),
    checkpoints: embeddedCheckpoints(file),
    async ping() {
      await file.all('SELECT 1 FROM sqlite_schema LIMIT 1')
    },
    close: file.close,
  }
}
