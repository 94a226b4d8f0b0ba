import { describe, expect, test } from 'bun:test'
import { type Broker, type Delivered, MessageTooLarge, type Outgoing } from '@posta/common/broker/broker.ts'
import { encodeDeadLetter } from '@posta/common/messages/dead-letter.ts'
import { decode } from '@posta/common/messages/envelope.ts'
import { createRedrive, toDeadLetter } from './dead-letters.ts'
import type { DeadLetters, StoredDeadLetter } from './events/events.ts'
import { at, deliver, loggedIn, NOON_MS, requested } from './samples.ts'

const setAside = (original: Delivered, reason = 'It failed.') =>
  toDeadLetter(deliver(encodeDeadLetter(original, 'posta.processor', reason)), NOON_MS)

describe('a dead letter', () => {
  test('holds what is known of the message and its bytes', () => {
    const original = deliver(requested('op-1'), 7, 3)
    expect(setAside(original)).toMatchObject({
      id: `posta.requests.3.7.${NOON_MS}`,
      status: 'open',
      receivedAtMs: NOON_MS,
      reason: 'It failed.',
      group: 'posta.processor',
      topic: 'posta.requests',
      partition: 3,
      offset: 7,
      redrivable: true,
      type: 'posta.operation.requested',
      user: 'ana',
      operation: 'op-1',
      redrive: undefined,
    })
  })

  test('knows the user of a request that cannot be read by its key, and of no other message', () => {
    const garbled = { value: Buffer.from('{'), headers: [] }
    expect(setAside({ ...deliver(requested('op-1')), ...garbled })).toMatchObject({ user: 'ana', preview: '{' })
    expect(setAside({ ...deliver(loggedIn('e-1')), ...garbled }).user).toBeUndefined()
  })

  test('of the topic of dead letters itself is not to be sent on', () => {
    const original = { ...deliver(loggedIn('e-1')), topic: 'posta.dead-letters' as const }
    expect(setAside(original).redrivable).toBe(false)
  })

  test('that cannot be read keeps 64 KiB at most', () => {
    const bytes = new Uint8Array(1024 * 1024)
    const headers = Array.from({ length: 1000 }, () => ['h'.repeat(1000), bytes] as const)
    const message = { ...deliver(loggedIn('e-1')), topic: 'posta.dead-letters' as const, value: bytes, headers }
    expect(JSON.stringify(toDeadLetter(message, NOON_MS)).length).toBeLessThan(64 * 1024 * 1.5 + 40_000)
  })
})

function setUp(deadLetter: StoredDeadLetter) {
  let stored = deadLetter
  const published: Outgoing[][] = []
  const steps: string[] = []
  let failure: Error | undefined
  const of = (id: string) => (id === stored.id ? stored : undefined)
  const deadLetters: DeadLetters = {
    add: async () => {},
    list: async () => [],
    get: async (id) => of(id),
    recordRedrive: async (id, redrive) => {
      steps.push('record')
      stored = { ...stored, redrive: stored.redrive ?? redrive }
      return of(id)
    },
    confirmRedrive: async (id) => {
      steps.push('confirm')
      stored = { ...stored, status: 'redriven' }
      return of(id)
    },
  }
  const broker: Broker = {
    publish: async (messages) => {
      steps.push('publish')
      if (failure) throw failure
      published.push([...messages])
      return messages.map(({ topic }) => ({ topic, partition: 0, offset: 0 }))
    },
    subscribe: () => Promise.reject(new Error('not here')),
    ping: async () => {},
    close: async () => {},
  }
  const redrive = createRedrive({ deadLetters, broker, deps: { now: () => NOON_MS } })
  return {
    redrive: (by = 'olga', id = stored.id) => redrive({ id, by }),
    fail: (error: Error | undefined) => {
      failure = error
    },
    published,
    steps,
  }
}

const delivered = (message: Outgoing | undefined): Delivered => {
  if (!message) throw new Error('there is a message')
  return deliver(message)
}

describe('a redrive', () => {
  const original = deliver(requested('op-1'), 7, 3)

  test('publishes the original bytes, headers and key, and the event with who asked', async () => {
    const { redrive, published } = setUp(setAside(original))
    expect(await redrive()).toMatchObject({
      status: 'redriven',
      redrive: { event: `posta.requests.3.7.${NOON_MS}.redriven`, by: 'olga', at: at(0) },
    })
    expect(published).toHaveLength(1)
    const [event, again] = published[0] ?? []
    expect(decode(delivered(event))).toMatchObject({
      envelope: {
        id: `posta.requests.3.7.${NOON_MS}.redriven`,
        type: 'posta.dead-letter.redriven',
        time: at(0),
        subject: 'op-1',
        traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
        data: { user: 'ana', deadLetter: `posta.requests.3.7.${NOON_MS}`, by: 'olga' },
      },
    })
    expect(again?.topic).toBe('posta.requests')
    expect(again?.key).toBe('ana')
    expect(Buffer.from(again?.value ?? [])).toEqual(Buffer.from(original.value ?? []))
    expect(again?.headers.map(([name, value]) => [name, Buffer.from(value).toString()])).toEqual([
      ...original.headers.map(([name, value]) => [name, Buffer.from(value).toString()]),
      ['ce_redrive', `posta.requests.3.7.${NOON_MS}.redriven`],
    ])
  })

  test('of what was redriven before names its own event alone', async () => {
    const again = { ...original, headers: [...original.headers, ['ce_redrive', Buffer.from('before')] as const] }
    const { redrive, published } = setUp(setAside(again))
    await redrive()
    expect(published[0]?.[1]?.headers.filter(([name]) => name === 'ce_redrive')).toHaveLength(1)
  })

  test('is recorded before anything is published, and confirmed after', async () => {
    const { redrive, steps } = setUp(setAside(original))
    await redrive()
    expect(steps).toEqual(['record', 'publish', 'confirm'])
  })

  test('that was asked for twice publishes once', async () => {
    const { redrive, published } = setUp(setAside(original))
    const first = await redrive('olga')
    expect(await redrive('oscar')).toEqual(first)
    expect(published).toHaveLength(1)
  })

  test('that failed half-way publishes the same when it is asked for again, in the name of who asked first', async () => {
    const { redrive, fail, published } = setUp(setAside(original))
    fail(new Error('The broker is down.'))
    await expect(redrive('olga')).rejects.toMatchObject({ code: 'overloaded' })
    fail(undefined)
    expect(await redrive('oscar')).toMatchObject({ status: 'redriven', redrive: { by: 'olga' } })
    expect(published).toHaveLength(1)
  })

  test('is refused for what is unknown, unreadable, discarded or too large', async () => {
    await expect(setUp(setAside(original)).redrive('olga', 'unknown')).rejects.toMatchObject({ code: 'not-found' })
    const unreadable = toDeadLetter({ ...deliver(loggedIn('e-1')), topic: 'posta.dead-letters' }, NOON_MS)
    await expect(setUp(unreadable).redrive()).rejects.toMatchObject({ code: 'conflict' })
    await expect(setUp({ ...setAside(original), status: 'discarded' }).redrive()).rejects.toMatchObject({
      code: 'conflict',
    })
    const large = setUp(setAside(original))
    large.fail(new MessageTooLarge('posta.requests', 2, 1))
    await expect(large.redrive()).rejects.toMatchObject({ code: 'conflict' })
  })

  test('of a message without key or value can be asked for too', async () => {
    const { redrive, published } = setUp(setAside({ ...original, key: null, value: null }))
    await redrive()
    expect(published[0]?.[1]).toMatchObject({ key: `posta.requests.3.7.${NOON_MS}`, value: Buffer.alloc(0) })
  })
})
