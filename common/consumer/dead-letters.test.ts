import { expect, test } from 'bun:test'
import { Registry } from 'prom-client'
import { decodeDeadLetter } from '../messages/dead-letter.ts'
import { decode } from '../messages/envelope.ts'
import type { Delivered, Outgoing } from '../messages/message.ts'
import { groups, topics } from '../messages/topics.ts'
import { systemDeps } from '../service/deps.ts'
import { createLog } from '../service/log.ts'
import { createFakeBroker, delivered } from '../testing/fake-broker.ts'
import { createSetAside } from './dead-letters.ts'
import type { ConsumeOptions } from './handler.ts'
import { createOutages } from './outages.ts'

const { signal } = new AbortController()

function setAsideWith(onDead?: ConsumeOptions<string>['onDead']) {
  const fake = createFakeBroker()
  const options: ConsumeOptions<string> = {
    name: 'requests',
    broker: fake.broker,
    group: groups.processor,
    topics: [topics.requests],
    read: () => ({ unreadable: 'It is poison.' }),
    handle: async () => [],
    ...(onDead && { onDead }),
    log: createLog('test', 'silent'),
    metrics: new Registry(),
    deps: systemDeps,
  }
  return { ...fake, setAside: createSetAside(options, createOutages({ log: options.log, firstPauseMs: 1 })) }
}

test('a dead letter has the original bytes, key and headers, its position and the reason', async () => {
  const { setAside, published } = setAsideWith()
  const original = {
    ...delivered(7, 'user', 'poison'),
    headers: [
      ['ce_subject', Buffer.from('operation-1')],
      ['odd', Buffer.from([0, 255])],
    ] as const,
  }

  await setAside([{ message: original, reason: 'It is poison.' }], signal)

  const [letter, event] = published
  if (!letter || !event) throw new Error('Nothing was published.')
  const arrived = (outgoing: Outgoing): Delivered => ({
    ...outgoing,
    key: Buffer.from(outgoing.key),
    partition: 0,
    offset: 0,
    timestampMs: 0,
  })
  expect(decodeDeadLetter(arrived(letter))).toEqual({
    id: 'posta.requests.0.7.1000',
    group: groups.processor,
    reason: 'It is poison.',
    original,
  })
  expect(decode(arrived(event))).toMatchObject({
    envelope: {
      type: 'posta.message.dead-lettered',
      subject: 'operation-1',
      data: {
        deadLetter: 'posta.requests.0.7.1000',
        user: 'user',
        topic: topics.requests,
        offset: 7,
        reason: 'It is poison.',
      },
    },
  })
})

test('onDead is called once the dead letter is published, and again after it threw', async () => {
  const calls: string[] = []
  const { setAside, published, failNextPublishes } = setAsideWith(async ({ item }, reason) => {
    calls.push(`${item}, ${published.length} published: ${reason}`)
    if (calls.length === 1) throw new Error('The store is down.')
  })
  failNextPublishes(2)
  const message = delivered(0, 'a', 'bad')
  await setAside([{ message, reason: 'It fails.', received: { item: 'bad', message } }], signal)
  expect(calls).toEqual(['bad, 2 published: It fails.', 'bad, 4 published: It fails.'])
})

test('a dead letter that the broker does not take is sent again', async () => {
  const { setAside, published, failNextPublishes } = setAsideWith()
  failNextPublishes(2)
  await setAside([{ message: delivered(0, 'a', 'poison'), reason: 'It is poison.' }], signal)
  expect(published.map(({ topic }) => topic)).toEqual([topics.deadLetters, topics.events])
})
