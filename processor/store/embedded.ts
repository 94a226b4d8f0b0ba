import { sqliteFile } from '@posta/common/storage/sqlite-file.ts'
import { embeddedResults, schema as resultsSchema } from '../results/embedded.ts'
import { embeddedRuns, schema as runsSchema } from '../runs/embedded.ts'

/** Processor's store in one SQLite file; other processes may use it at the same time. */
export function openEmbedded(path: string) {
  const file = sqliteFile(path, [resultsSchema, runsSchema])
  return {
    results: embeddedResults(file),
    runs: embeddedRuns(file),
    async ping() {
      await file.all('SELECT 1 FROM sqlite_schema LIMIT 1')
    },
    close: file.close,
  }
}
