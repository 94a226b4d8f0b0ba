import { expect, test } from 'bun:test'
import { connect, createServer } from 'node:net'
import { databaseUrl, dropDatabase, freshDatabase } from '@posta/common/testing/fresh-store.ts'
import { openMongo } from '../store/mongo.ts'
import { letters } from '../testing/dead-letters.ts'
import { describeDeadLetters } from './dead-letters.suite.ts'

const serverUrl = process.env.TEST_MONGO_URL

if (serverUrl) {
  describeDeadLetters('the MongoDB store', () => freshDatabase(serverUrl, openMongo))

  test('an insert that gets no answer, since the connection breaks, is no insert', async () => {
    const url = new URL(databaseUrl(serverUrl))
    let inserts: 'pass' | 'break' = 'pass'
    const way = createServer((client) => {
      const server = connect(Number(url.port || 27017), url.hostname)
      client.on('data', (bytes) => {
        if (inserts === 'break' && bytes.includes('insert')) client.destroy()
        else server.write(bytes)
      })
      server.pipe(client)
      client.on('error', () => {}).on('close', () => server.destroy())
      server.on('error', () => {}).on('close', () => client.destroy())
    })
    const listening = Promise.withResolvers<void>()
    way.listen(0, '127.0.0.1', listening.resolve)
    await listening.promise
    const address = way.address()
    if (address === null || typeof address === 'string') throw new Error('it listens on a port')
    const throughIt = new URL(url)
    throughIt.host = `127.0.0.1:${address.port}`
    const store = openMongo(throughIt.href)
    try {
      const [first, second] = letters(2)
      if (!first || !second) throw new Error('there are two')
      const decision = { to: 'redriven', event: 'e', by: 'op', at: '2026-11-23T12:00:00.000Z' } as const
      await store.deadLetters.add([first])
      inserts = 'break'
      await expect(store.deadLetters.add([second])).rejects.toThrow()
      await expect(store.deadLetters.decide([{ id: first.id, decision }])).rejects.toThrow()
      inserts = 'pass'
      expect(await store.deadLetters.get(second.id)).toBeUndefined()
      expect((await store.deadLetters.get(first.id))?.decision).toBeUndefined()
    } finally {
      await store.close()
      way.close()
      await dropDatabase(url.href)
    }
  }, 30_000)
}
