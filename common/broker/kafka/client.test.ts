import { expect, spyOn, test } from 'bun:test'
import { createServer } from 'node:net'
import { createLog } from '../../service/log.ts'
import { createConnector } from './client.ts'

// patches/kafkajs@2.2.4.patch: see patches/README.md.
test('an idle connection does not set timers over and over', async () => {
  const answered = Promise.withResolvers<void>()
  const listening = Promise.withResolvers<void>()
  // Answers the first request, for the broker's API versions, with an empty list, and then nothing.
  const server = createServer((socket) =>
    socket.once('data', (request: Buffer) => {
      const answer = Buffer.alloc(18)
      answer.writeInt32BE(answer.length - 4)
      request.copy(answer, 4, 8, 12)
      socket.write(answer, () => answered.resolve())
    }),
  ).listen(0, '127.0.0.1', listening.resolve)
  await listening.promise
  const bound = server.address()
  const port = bound !== null && typeof bound === 'object' ? bound.port : 0
  const { connect, close } = createConnector({
    address: { kind: 'kafka', brokers: [{ host: '127.0.0.1', port }], tls: false, sasl: undefined },
    username: undefined,
    password: undefined,
    clientId: 'test',
    log: createLog('test', 'silent'),
  })
  const timers = spyOn(globalThis, 'setTimeout')
  try {
    connect()
      .kafka.admin()
      .connect()
      .catch(() => {})
    await answered.promise
    await Bun.sleep(200)
    expect(timers.mock.calls.filter(([, delayMs = 0]) => delayMs < 0).length).toBe(0)
  } finally {
    timers.mockRestore()
    close()
    server.close()
  }
})
