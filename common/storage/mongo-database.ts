import {
  type Collection,
  type Db,
  type IndexDescription,
  MongoBulkWriteError,
  MongoClient,
  type OptionalUnlessRequiredId,
} from 'mongodb'

/** The code of a write that met a unique index. */
export const DUPLICATE_KEY = 11000
/** FerretDB 1.24 goes on behind a duplicate after every hundredth document, ordered or not. */
const MAX_INSERT = 100

/** The database of a store on a MongoDB, reached at its first use and, after an outage, again. */
export interface MongoDatabase<Collections> {
  /** Those that `prepare` made. Where it failed the next call tries again. */
  collections(): Promise<Collections>
  /** Rejects with the reason where the server does not answer. */
  ping(): Promise<void>
  close(): Promise<void>
}

/**
 * What is acknowledged here is on the disks of a majority, and what is read cannot be rolled back.
 * @param prepare makes the collections with their indexes; it runs again after a failure
 */
export function mongoDatabase<Collections>(options: {
  readonly url: string
  readonly socketTimeoutMs: number
  readonly prepare: (database: Db) => Promise<Collections>
}): MongoDatabase<Collections> {
  const { url, socketTimeoutMs, prepare } = options
  const client = new MongoClient(url, {
    serverSelectionTimeoutMS: 3000,
    connectTimeoutMS: 3000,
    socketTimeoutMS: socketTimeoutMs,
    waitQueueTimeoutMS: 3000,
    ignoreUndefined: true,
    writeConcern: { w: 'majority', journal: true },
    readConcern: { level: 'majority' },
  })
  let prepared: Promise<Collections> | undefined

  async function connect(): Promise<Collections> {
    // Said outright: the driver connects by itself only once, and after a failure not again.
    await client.connect()
    return prepare(client.db())
  }

  function collections(): Promise<Collections> {
    prepared ??= connect().catch((error: unknown) => {
      prepared = undefined
      throw error
    })
    return prepared
  }

  return {
    collections,
    async ping() {
      await collections()
      await client.db().command({ ping: 1 })
    },
    async close() {
      await client.close()
    },
  }
}

/** One at a time: FerretDB 1.24 breaks on several of which two exist. */
export async function makeIndexes<Document extends { readonly _id: unknown }>(
  collection: Collection<Document>,
  indexes: readonly IndexDescription[],
): Promise<void> {
  for (const index of indexes) await collection.createIndexes([index])
}

/** Inserts in order up to the first that meets a unique index; that one and all after it stay out. @returns how many went in */
export async function insertInOrder<Document extends { readonly _id: string }>(
  collection: Collection<Document>,
  documents: readonly OptionalUnlessRequiredId<Document>[],
): Promise<number> {
  for (let start = 0; start < documents.length; start += MAX_INSERT) {
    try {
      await collection.insertMany(documents.slice(start, start + MAX_INSERT), { ordered: true })
    } catch (error) {
      const taken = error instanceof MongoBulkWriteError && error.code === DUPLICATE_KEY
      if (!taken || error.result.getWriteConcernError()) throw error
      return start + error.insertedCount
    }
  }
  return documents.length
}

/** A document is the item with its id as `_id`. */
export function toDocument<Item extends { readonly id: string }>({
  id,
  ...rest
}: Item): Omit<Item, 'id'> & { readonly _id: string } {
  return { _id: id, ...rest }
}

export function withId<Document extends { readonly _id: string }>({
  _id,
  ...rest
}: Document): Omit<Document, '_id'> & { readonly id: string } {
  return { ...rest, id: _id }
}
