import { expect, test } from 'bun:test'
import { connect, createServer, type Socket } from 'node:net'
import { databaseUrl, dropDatabase, freshDatabase } from '@posta/common/testing/fresh-store.ts'
import { openMongo } from '../store/mongo.ts'
import { deliver, loggedIn, NOON_MS } from '../testing/messages.ts'
import { createAppend } from './append.ts'
import { describeStore } from './events.suite.ts'
import { toEvent } from './record.ts'

const serverUrl = process.env.TEST_MONGO_URL

if (serverUrl) {
  describeStore('the MongoDB store', () => freshDatabase(serverUrl, openMongo))

  test('calls reject while the server is down, and work once it is up', async () => {
    const url = new URL(databaseUrl(serverUrl))
    const { hostname, port } = url
    const sockets = new Set<Socket>()
    const way = createServer((client) => {
      const server = connect(Number(port || 27017), hostname)
      for (const socket of [client, server]) {
        sockets.add(socket)
        socket.on('error', () => {}).on('close', () => sockets.delete(socket))
      }
      client.pipe(server).pipe(client)
    })
    const listening = Promise.withResolvers<void>()
    way.listen(0, '127.0.0.1', listening.resolve)
    await listening.promise
    const address = way.address()
    if (address === null || typeof address === 'string') throw new Error('it listens on a port')
    await new Promise((resolve) => way.close(resolve))

    const throughIt = new URL(url)
    throughIt.host = `127.0.0.1:${address.port}`
    const store = openMongo(throughIt.href)
    try {
      const append = createAppend(store.events)
      const event = toEvent(deliver(loggedIn('a')), NOON_MS)
      await expect(append([event])).rejects.toThrow()
      await expect(store.ping()).rejects.toThrow()
      const again = Promise.withResolvers<void>()
      way.listen(address.port, '127.0.0.1', again.resolve)
      await again.promise
      await append([event])
      expect(await store.events.get('a')).toBeDefined()
    } finally {
      await store.close()
      for (const socket of sockets) socket.destroy()
      way.close()
      await dropDatabase(url.href)
    }
  }, 30_000)
}

test('opening does not connect, and without a server a call rejects within a few seconds', async () => {
  const store = openMongo('mongodb://127.0.0.1:1/nothing')
  const startedMs = performance.now()
  await expect(store.events.get('a')).rejects.toThrow()
  expect(performance.now() - startedMs).toBeLessThan(5000)
  await store.close()
})
