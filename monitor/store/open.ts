import { filePath } from '@posta/common/service/file-url.ts'
import { openEmbedded } from '../events/embedded.ts'
import type { Store } from '../events/events.ts'
import { openMongo } from '../events/mongo.ts'

/** The store at a `file:` or `mongodb://…/name` URL. */
export function openStore(url: string): Store {
  return url.startsWith('file:') ? openEmbedded(filePath(url)) : openMongo(url)
}
