import { afterEach, expect, test } from 'bun:test'
import { createServer, type Server, type Socket } from 'node:net'
import { BSON, MongoClient } from 'mongodb'

const MIB = 1024 * 1024
const OP_REPLY = 1
const OP_MSG = 2013

let server: Server | undefined
const sockets = new Set<Socket>()

afterEach(() => {
  for (const socket of sockets) socket.destroy()
  server?.close()
})

/** A MongoDB server that answers the handshake, and stops reading when a large message comes. */
async function startServer(): Promise<{ url: string; stalled: Promise<void> }> {
  const stalled = Promise.withResolvers<void>()
  const listening = Promise.withResolvers<void>()
  const started = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('data', (request: Buffer) => {
      if (request.readInt32LE(0) < MIB) return void socket.write(greeting(request))
      socket.pause()
      stalled.resolve()
    })
  }).listen(0, '127.0.0.1', listening.resolve)
  server = started
  await listening.promise
  const address = started.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  return { url: `mongodb://127.0.0.1:${port}/?directConnection=true`, stalled: stalled.promise }
}

/** The answer to a handshake: https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/ */
function greeting(request: Buffer): Buffer {
  const document = BSON.serialize({ ok: 1, isWritablePrimary: true, minWireVersion: 0, maxWireVersion: 21 })
  const isMsg = request.readInt32LE(12) === OP_MSG
  // The header of 16 bytes, then flags and section kind; in the older form flags, cursor, start and number of documents.
  const head = Buffer.alloc(16 + (isMsg ? 5 : 20))
  head.writeInt32LE(head.length + document.length, 0)
  request.copy(head, 8, 4, 8)
  head.writeInt32LE(isMsg ? OP_MSG : OP_REPLY, 12)
  if (!isMsg) head.writeInt32LE(1, 32)
  return Buffer.concat([head, document])
}

// patches/mongodb@7.9.0.patch: see patches/README.md.
test('an operation rejects when its connection is closed while it still writes', async () => {
  const { url, stalled } = await startServer()
  const client = new MongoClient(url)
  const written = client
    .db('test')
    .collection('test')
    .insertOne({ large: Buffer.alloc(15 * MIB) })
    .then(
      () => 'written',
      (error: unknown) => String(error),
    )
  await stalled
  await client.close()
  expect(await Promise.race([written, Bun.sleep(2000).then(() => 'still waiting')])).toContain('closed')
}, 10_000)
