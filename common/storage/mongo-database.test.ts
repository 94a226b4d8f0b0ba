import { afterEach, expect, test } from 'bun:test'
import { MongoClient } from 'mongodb'
import { databaseUrl, dropDatabase } from '../testing/fresh-store.ts'
import { type MongoDatabase, mongoDatabase } from './mongo-database.ts'
import { storeComponent } from './store-component.ts'

const server = process.env.TEST_MONGO_URL
const onServer = test.skipIf(!server)
const url = databaseUrl(server ?? 'mongodb://127.0.0.1:1')
const opened: MongoDatabase<unknown>[] = []

afterEach(async () => {
  for (const database of opened.splice(0)) await database.close()
  if (server) await dropDatabase(url)
})

function open() {
  const database = mongoDatabase({
    url,
    socketTimeoutMs: 3000,
    prepare: (db) => db.createCollection('users').catch(() => db.collection('users')),
  })
  opened.push(database)
  return database
}

onServer('processes that open a new database at the same time all get it', async () => {
  const all = Array.from({ length: 8 }, open)
  await Promise.all(all.map((database) => storeComponent(database).start?.()))
  await Promise.all(all.map((database) => database.ping()))
})

onServer('a database that another version made is refused at the start, with what to do', async () => {
  const client = new MongoClient(url)
  await client.db().createCollection('users')
  await client.close()
  const message = /another version of Posta made the database .*\. Run that version, or name another database/
  await expect(storeComponent(open()).start?.()).rejects.toThrow(message)
})

test('a service starts while its store is down', async () => {
  const down = { ping: () => Promise.reject(new Error('down')), close: async () => {} }
  await storeComponent(down).start?.()
  await expect(storeComponent(down).check?.()).rejects.toThrow('down')
})
