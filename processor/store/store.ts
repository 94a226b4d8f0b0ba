import { filePath } from '@posta/common/service/file-url.ts'
import type { Results } from '../results/results.ts'
import type { Runs } from '../runs/runs.ts'
import { openEmbedded } from './embedded.ts'
import { openMongo } from './mongo.ts'

/** Where processor keeps everything. Opening never connects; calls reject while the store cannot be reached. */
export interface Store {
  readonly results: Results
  readonly runs: Runs
  /** Rejects with the reason, within about 3 s, where the store does not answer. */
  ping(): Promise<void>
  close(): Promise<void>
}

/** @param url `file:` and a path, or `mongodb://…/name` */
export function openStore(url: string): Store {
  return url.startsWith('file:') ? openEmbedded(filePath(url)) : openMongo(url)
}
