import {
  type Collection,
  type Db,
  type IndexDescription,
  MongoBulkWriteError,
  MongoClient,
  MongoServerError,
  type OptionalUnlessRequiredId,
} from 'mongodb'
import { NAME, TITLE } from '../name.ts'
import { ConfigError } from '../service/config.ts'

/** The code of a write that a unique index refused. */
export const DUPLICATE_KEY = 11000
/** FerretDB 1.24 inserts a hundred documents at a time. After a duplicate it goes on with the next hundred, even in order. */
const MAX_INSERT = 100

/** How this version stores documents. */
const FORMAT = 1

/**
 * A database on a MongoDB server.
 *
 * - Opening never connects. The first call connects; calls reject, within about 3 s, while the server is down, and work
 *   again once it is up.
 * - A write that resolved is on the disks of a majority. A read sees only such writes, so nothing read is rolled back.
 * - After a write that rejected because the connection broke, it is unknown whether the server stored it.
 */
export interface MongoDatabase<Collections> {
  /** What `prepare` made. After a failure the next call tries again. */
  collections(): Promise<Collections>
  /** Rejects with the reason where the server does not answer. */
  ping(): Promise<void>
  close(): Promise<void>
}

/**
 * @param options.url names the server and the database: `mongodb://host:port/name`
 * @param options.socketTimeoutMs how long the server may take to answer a call
 * @param options.prepare makes the collections with their indexes, once connected; runs again if it failed
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
    // The driver connects by itself only at its first call: after a failure it must be told to.
    await client.connect()
    const database = client.db()
    await refuseOtherFormats(database)
    return prepare(database)
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
    close: () => client.close(),
  }
}

/**
 * A new database gets the format's number before anything else, so that one with collections and without a number is older.
 * @throws ConfigError where another version made the database
 */
async function refuseOtherFormats(database: Db): Promise<void> {
  const formats = database.collection<{ _id: typeof NAME; format: number }>(`${NAME}_format`)
  const collections = await database.listCollections({}, { nameOnly: true }).toArray()
  // FerretDB makes a collection before it inserts the first document: the format's own may be there, and empty.
  if (collections.every(({ name }) => name === formats.collectionName))
    await formats.insertOne({ _id: NAME, format: FORMAT }).catch((error: unknown) => {
      // Another process does the same.
      if (!(error instanceof MongoServerError && error.code === DUPLICATE_KEY)) throw error
    })
  const found = await formats.findOne()
  if (found?.format === FORMAT) return
  throw new ConfigError([
    `PROCESSOR_STORE_URL or MONITOR_STORE_URL: another version of ${TITLE} made the database ${database.databaseName}. Run that version, or name another database`,
  ])
}

/**
 * Makes the indexes that do not exist yet. Resolves to the collection.
 * One command for each: FerretDB 1.24 fails at a command that names several indexes, two of which exist.
 */
export async function makeIndexes<Document extends { readonly _id: unknown }>(
  collection: Collection<Document>,
  indexes: readonly IndexDescription[],
): Promise<Collection<Document>> {
  for (const index of indexes) await collection.createIndexes([index])
  return collection
}

/**
 * Inserts documents in their order up to the first that a unique index refuses: that one and all after it stay out.
 * @returns how many were inserted
 */
export async function insertInOrder<Document extends { readonly _id: string }>(
  collection: Collection<Document>,
  documents: readonly OptionalUnlessRequiredId<Document>[],
): Promise<number> {
  for (let start = 0; start < documents.length; start += MAX_INSERT) {
    try {
      await collection.insertMany(documents.slice(start, start + MAX_INSERT), { ordered: true })
    } catch (error) {
      const refused = error instanceof MongoBulkWriteError && error.code === DUPLICATE_KEY
      if (!refused || error.result.getWriteConcernError()) throw error
      return start + error.insertedCount
    }
  }
  return documents.length
}

/**
 * Inserts the documents whose `_id` is new. Of several callers that insert one `_id` at once, one does.
 * @returns the ids of those that were inserted
 */
export async function insertNew<Document extends { readonly _id: string }>(
  collection: Collection<Document>,
  documents: readonly (OptionalUnlessRequiredId<Document> & { readonly _id: string })[],
): Promise<ReadonlySet<string>> {
  if (documents.length === 0) return new Set()
  const ids = documents.map(({ _id }) => _id)
  try {
    await collection.insertMany(documents, { ordered: false })
    return new Set(ids)
  } catch (error) {
    if (!(error instanceof MongoBulkWriteError) || error.result.getWriteConcernError()) throw error
    const refused = error.result.getWriteErrors()
    // A broken connection is such an error too: then nothing was refused, and nobody knows what was stored.
    if (refused.length === 0 || refused.some(({ code }) => code !== DUPLICATE_KEY)) throw error
    const known = new Set(refused.map(({ index }) => index))
    return new Set(ids.filter((_, index) => !known.has(index)))
  }
}

/** The document of an item: its id is `_id`. */
export function toDocument<Item extends { readonly id: string }>({ id, ...rest }: Item) {
  return { _id: id, ...rest }
}

/** The item of a document. */
export function withId<Document extends { readonly _id: string }>({ _id, ...rest }: Document) {
  return { ...rest, id: _id }
}
