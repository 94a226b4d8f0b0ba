import { filePath } from '@posta/common/service/file-url.ts'
import { openEmbeddedResults } from './embedded.ts'
import { openMongoResults } from './mongo.ts'
import type { Results } from './results.ts'

/** `file:` is a SQLite file on this machine, `mongodb://…/name` a database of a MongoDB. */
export function openResults(url: string): Results {
  return url.startsWith('file:') ? openEmbeddedResults(filePath(url)) : openMongoResults(url)
}
