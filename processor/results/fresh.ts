import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MongoClient } from 'mongodb'
import { openEmbeddedResults } from './embedded.ts'
import { openMongoResults } from './mongo.ts'
import type { Results } from './results.ts'

/** For tests: a store with nothing in it yet. */
export interface Fresh {
  /** As each member of the group opens it. */
  open(): Results
  /** After every opening is closed. */
  dispose(): Promise<void> | void
}

export function freshEmbedded(): Fresh {
  const folder = mkdtempSync(join(tmpdir(), 'posta-results-'))
  return {
    open: () => openEmbeddedResults(join(folder, 'results.db')),
    dispose: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** A database of its own on the server. */
export function freshMongo(serverUrl: string): Fresh {
  const url = new URL(serverUrl)
  url.pathname = `/posta-results-${Bun.randomUUIDv7()}`
  return {
    open: () => openMongoResults(url.href),
    async dispose() {
      const client = new MongoClient(url.href)
      await client.db().dropDatabase()
      await client.close()
    },
  }
}
