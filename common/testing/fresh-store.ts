import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { MongoClient } from 'mongodb'

// For the suites of stores.

/** A store with nothing in it yet. */
export interface Fresh<Store> {
  /** As each process opens it that shares it. */
  open(): Store
  /** Closes every opening, and removes it. */
  dispose(): Promise<void>
}

interface Closable {
  close(): Promise<void>
}

/** In a file of a folder of its own. */
export function freshFile<Store extends Closable>(open: (path: string) => Store): Fresh<Store> {
  const folder = mkdtempSync(join(tmpdir(), 'posta-store-'))
  return fresh(
    () => open(join(folder, 'store.db')),
    async () => rmSync(folder, { recursive: true, force: true }),
  )
}

/** A database of its own on the server. */
export function freshDatabase<Store extends Closable>(serverUrl: string, open: (url: string) => Store): Fresh<Store> {
  const url = databaseUrl(serverUrl)
  return fresh(
    () => open(url),
    () => dropDatabase(url),
  )
}

function fresh<Store extends Closable>(open: () => Store, remove: () => Promise<void>): Fresh<Store> {
  const opened: Store[] = []
  return {
    open() {
      const store = open()
      opened.push(store)
      return store
    },
    async dispose() {
      for (const store of opened) await store.close()
      await remove()
    },
  }
}

export function databaseUrl(serverUrl: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/posta-test-${Bun.randomUUIDv7()}`
  return url.href
}

export async function dropDatabase(url: string): Promise<void> {
  const client = new MongoClient(url)
  await client.db().dropDatabase()
  await client.close()
}
