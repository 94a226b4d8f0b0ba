import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { openEmbedded } from '@posta/common/broker/embedded/embedded.ts'
import { encodeDeadLetter } from '@posta/common/messages/dead-letter.ts'
import type { Delivered } from '@posta/common/messages/message.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { createLog } from '@posta/common/service/log.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import { Registry } from 'prom-client'
import type { StoredDeadLetter } from '../dead-letters/dead-letters.ts'
import { abandoned, deliver, loggedIn, NOON_MS, progressed, requested, succeeded } from '../testing/messages.ts'
import type { NewEvent } from './events.ts'
import { createReceive, readMessage, receiveEvents } from './receive.ts'

const garbled = (message: Delivered): Delivered => ({ ...message, value: Buffer.from('{') })

function setUp() {
  const stored: NewEvent[] = []
  const letters: StoredDeadLetter[] = []
  const calls: string[] = []
  const receive = createReceive({
    append: async (events) => void stored.push(...events),
    deadLetters: { add: async (added) => void letters.push(...added) },
    onStored: () => calls.push('stored'),
    deps: { now: () => NOON_MS },
  })
  const receiveAll = (...messages: Delivered[]) =>
    receive(
      messages.flatMap((message) => {
        const read = readMessage(message)
        return 'item' in read ? [{ item: read.item, message }] : []
      }),
      new AbortController().signal,
    )
  return { stored, letters, calls, receiveAll }
}

test('requests, results, progress and events become events', async () => {
  const { stored, calls, receiveAll } = setUp()
  const messages = [requested('op-1'), progressed('op-1', 1, 20), abandoned('op-1'), succeeded('op-1'), loggedIn('e-1')]
  const verdicts = await receiveAll(...messages.map((message) => deliver(message)))
  expect(verdicts).toEqual(messages.map(() => ({ done: true })))
  expect(stored.map(({ id }) => id)).toEqual([
    'op-1.requested',
    'op-1.progress.1',
    'd1.abandoned',
    'op-1.succeeded',
    'e-1',
  ])
  expect(calls).toEqual(['stored'])
})

test('an unreadable event is dead-lettered, since monitor is its only reader', () => {
  expect(readMessage(garbled(deliver(loggedIn('e-1'))))).toEqual({ unreadable: 'The value is not JSON in UTF-8.' })
})

test('an unreadable request or result is left to the service that it is for, which dead-letters it once', async () => {
  const { stored, letters, receiveAll } = setUp()
  const messages = [garbled(deliver(requested('op-1'))), deliver(loggedIn('e-1')), garbled(deliver(succeeded('op-1')))]
  expect(await receiveAll(...messages)).toEqual([{ done: true }, { done: true }, { done: true }])
  expect(stored.map(({ id }) => id)).toEqual(['e-1'])
  expect(letters).toEqual([])
})

test('a dead letter is stored as a dead letter', async () => {
  const { letters, calls, receiveAll } = setUp()
  const original = deliver(requested('op-1'), 7, 3)
  await receiveAll(deliver(encodeDeadLetter(original, 'posta.processor', 'It failed.')))
  expect(letters).toMatchObject([{ id: `posta.requests.3.7.${NOON_MS}`, redrivable: true }])
  expect(calls).toEqual([])
})

test.each([
  ['without any fact', {}],
  ['without a value', { value: null }],
  ['without headers or key', { headers: [], key: null }],
  ['with bytes that are no text', { value: new Uint8Array([0, 255]), headers: [['posta-id', new Uint8Array([255])]] }],
] as const)(
  'a message %s on the topic of dead letters is stored, and never dead-lettered again',
  async (_, changes) => {
    const { letters, receiveAll } = setUp()
    const message = { ...deliver(loggedIn('e-1'), 5), topic: 'posta.dead-letters' as const, ...changes }
    expect(await receiveAll(message)).toEqual([{ done: true }])
    expect(letters).toMatchObject([{ id: `posta.dead-letters.0.5.${NOON_MS}`, redrivable: false }])
  },
)

test('a failure of the store rejects, so the batch is delivered again', async () => {
  const receive = createReceive({
    append: () => Promise.reject(new Error('down')),
    deadLetters: { add: async () => {} },
    onStored: () => {},
    deps: { now: () => NOON_MS },
  })
  const message = deliver(loggedIn('e-1'))
  await expect(receive([{ item: 'event', message }], new AbortController().signal)).rejects.toThrow('down')
})

test('monitor reads every topic, and counts what it has dealt with by topic and kind', async () => {
  using folder = temporaryFolder()
  const broker = openEmbedded({ path: join(folder.path, 'broker.db') })
  const stored: NewEvent[] = []
  const metrics = new Registry()
  const consumer = receiveEvents({
    append: async (events) => void stored.push(...events),
    deadLetters: { add: async () => {} },
    onStored: () => {},
    broker,
    log: createLog('test', 'silent'),
    metrics,
    deps: systemDeps,
  })
  await consumer.start()
  const letter = encodeDeadLetter(deliver(requested('op-2')), 'posta.processor', 'It failed.')
  await broker.publish([requested('op-1'), succeeded('op-1'), loggedIn('e-1'), letter])
  const counted = async () =>
    (await metrics.metrics()).split('\n').filter((line) => line.startsWith('posta_messages_read_total'))
  await eventually(async () => (await counted()).length === 4)
  expect((await counted()).toSorted()).toEqual([
    'posta_messages_read_total{topic="posta.dead-letters",kind="dead letter"} 1',
    'posta_messages_read_total{topic="posta.events",kind="event"} 1',
    'posta_messages_read_total{topic="posta.requests",kind="event"} 1',
    'posta_messages_read_total{topic="posta.results",kind="event"} 1',
  ])
  expect(stored).toHaveLength(3)
  await consumer.close()
  await broker.close()
})
