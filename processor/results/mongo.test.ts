import { expect, test } from 'bun:test'
import { connect, createServer, type Server } from 'node:net'
import { databaseUrl, dropDatabase, freshDatabase } from '@posta/common/testing/fresh-store.ts'
import { isLong } from '@posta/common/testing/long.ts'
import { openMongo } from '../store/mongo.ts'
import { describeResults, succeeded } from './results.suite.ts'

const serverUrl = process.env.TEST_MONGO_URL

if (serverUrl) {
  describeResults('the MongoDB store', () => freshDatabase(serverUrl, openMongo))

  test('a store works once its server is up', async () => {
    const url = new URL(databaseUrl(serverUrl))
    const { hostname, port } = url
    const proxy = createServer((client) => {
      const server = connect(Number(port), hostname)
      client.on('error', () => server.destroy()).on('close', () => server.destroy())
      server.on('error', () => client.destroy()).on('close', () => client.destroy())
      client.pipe(server).pipe(client)
    })
    const listen = (port: number) =>
      new Promise<number>((resolve) => proxy.listen(port, '127.0.0.1', () => resolve(portOf(proxy))))
    const freePort = await listen(0)
    await new Promise((resolve) => proxy.close(resolve))

    const { results, close } = openMongo(`mongodb://127.0.0.1:${freePort}${url.pathname}?directConnection=true`)
    expect(await results.append([succeeded('a')]).catch(() => 'rejected')).toBe('rejected')
    await listen(freePort)
    expect(await results.append([succeeded('a')])).toBe(1)
    await close()
    await new Promise((resolve) => proxy.close(resolve))
    await dropDatabase(url.href)
  })
}

test.skipIf(!isLong)('while its server is down a store opens, rejects within seconds, and closes', async () => {
  // Nothing listens on port 1.
  const { results, ping, close } = openMongo('mongodb://127.0.0.1:1/results')
  const startedMs = performance.now()
  const answers = await Promise.allSettled([
    results.append([succeeded('a')]),
    results.find(['a']),
    results.page({ limit: 1 }),
    ping(),
  ])
  expect(answers.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected', 'rejected'])
  expect(performance.now() - startedMs).toBeLessThan(5000)
  await close()
})

function portOf(server: Server): number {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('The server listens on no port.')
  return address.port
}
