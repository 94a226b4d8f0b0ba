import { join } from 'node:path'
import { MongoClient } from 'mongodb'
import { NAME } from '../name.ts'
import { temporaryFolder } from './temporary-folder.ts'

/** For the suites of stores: a store with nothing in it yet. */
export interface Fresh<Store> {
  /** Opens it once more, as each process does that shares it. */
  open(): Store
  /** Closes every opening and removes the store. */
  dispose(): Promise<void>
}

interface Closable {
  close(): Promise<void>
}

/** A store in a file of its own folder. */
export function freshFile<Store extends Closable>(open: (path: string) => Store): Fresh<Store> {
  const folder = temporaryFolder()
  return fresh(() => open(join(folder.path, 'store.db')), folder.remove)
}

/** A store in a new database on the server. */
export function freshDatabase<Store extends Closable>(serverUrl: string, open: (url: string) => Store): Fresh<Store> {
  const url = databaseUrl(serverUrl)
  return fresh(
    () => open(url),
    () => dropDatabase(url),
  )
}

function fresh<Store extends Closable>(open: () => Store, remove: () => Promise<void> | void): Fresh<Store> {
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

/** The URL of a database that no other test uses. */
export function databaseUrl(serverUrl: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/${NAME}-test-${Bun.randomUUIDv7()}`
  return url.href
}

export async function dropDatabase(url: string): Promise<void> {
  const client = new MongoClient(url)
  await client.db().dropDatabase()
  await client.close()
}
