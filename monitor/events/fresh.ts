import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MongoClient } from 'mongodb'
import { openEmbedded } from './embedded.ts'
import type { Store } from './events.ts'
import { openMongo } from './mongo.ts'

/** For tests: a store with nothing in it yet. */
export interface Fresh {
  /** As each replica opens it. */
  open(): Store
  /** After every opening is closed. */
  dispose(): Promise<void> | void
}

export function freshEmbedded(): Fresh {
  const folder = mkdtempSync(join(tmpdir(), 'posta-monitor-'))
  return {
    open: () => openEmbedded(join(folder, 'monitor.db')),
    dispose: () => rmSync(folder, { recursive: true, force: true }),
  }
}

/** A database of its own on the server. */
export function freshMongo(serverUrl: string): Fresh {
  const url = databaseUrl(serverUrl)
  return {
    open: () => openMongo(url),
    dispose: () => dropDatabase(url),
  }
}

export function databaseUrl(serverUrl: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/posta-monitor-${Bun.randomUUIDv7()}`
  return url.href
}

export async function dropDatabase(url: string): Promise<void> {
  const client = new MongoClient(url)
  await client.db().dropDatabase()
  await client.close()
}
