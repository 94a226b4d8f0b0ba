import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { decode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { fakeBroker, letters, setAside, stores, unreadable } from '../testing/dead-letters.ts'
import { abandoned, at, deliver, NOON_MS, requested, succeeded } from '../testing/messages.ts'
import type { Choice, StoredDeadLetter } from './dead-letters.ts'
import { createDecisions } from './decisions.ts'

const original = deliver(requested('op-1'), 7, 3)
const id = `posta.requests.3.7.${NOON_MS}`
const redriven: Choice = { to: 'redriven' }
const discarded: Choice = { to: 'discarded', reason: 'A test of ours.' }

describe.each(stores)('with the %s store', (_, fresh) => {
  let here: ReturnType<typeof fresh>
  let broker: ReturnType<typeof fakeBroker>

  const replica = (store = here.open(), to: Pick<typeof broker, 'publish'> = broker) =>
    createDecisions({ deadLetters: store.deadLetters, broker: to, deps: { now: () => NOON_MS } })

  beforeEach(() => {
    here = fresh()
    broker = fakeBroker()
  })
  afterEach(async () => {
    await here.dispose()
  })

  async function keep(...deadLetters: StoredDeadLetter[]) {
    const store = here.open()
    await store.deadLetters.add(deadLetters)
    const { decide } = replica(store)
    return { store, decide: (by: string, choice: Choice, which = id) => decide({ id: which, by, choice }) }
  }

  const envelope = (message: Outgoing | undefined) => {
    if (!message) throw new Error('there is a message')
    const decoded = decode(deliver(message))
    return 'envelope' in decoded ? decoded.envelope : decoded
  }

  describe('a redrive', () => {
    test('publishes the original bytes, headers and key, and the event with who asked', async () => {
      const { decide } = await keep(setAside(original))
      expect(await decide('olga', redriven)).toMatchObject({
        status: 'redriven',
        decision: { to: 'redriven', event: `${id}.redriven`, by: 'olga', at: at(0) },
      })
      expect(broker.published).toHaveLength(1)
      const [event, again] = broker.published[0] ?? []
      expect(envelope(event)).toMatchObject({
        id: `${id}.redriven`,
        type: 'posta.dead-letter.redriven',
        time: at(0),
        subject: 'op-1',
        traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
        data: { user: 'ana', deadLetter: id, by: 'olga' },
      })
      expect(again?.topic).toBe('posta.requests')
      expect(again?.key).toBe('ana')
      expect(Buffer.from(again?.value ?? [])).toEqual(Buffer.from(original.value ?? []))
      expect(again?.headers.map(([name, value]) => [name, Buffer.from(value).toString()])).toEqual([
        ...original.headers.map(([name, value]) => [name, Buffer.from(value).toString()]),
        ['ce_redrive', `${id}.redriven`],
      ])
    })

    test('of a message that was redriven before names its own event alone', async () => {
      const again = { ...original, headers: [...original.headers, ['ce_redrive', Buffer.from('before')] as const] }
      const { decide } = await keep(setAside(again))
      await decide('olga', redriven)
      expect(broker.ids('ce_redrive')).toEqual([`${id}.redriven`])
    })

    test('of a message without key or value, or with an invalid traceparent, is possible too', async () => {
      const headers = [['traceparent', Buffer.from('x'.repeat(300_000))]] as const
      const { decide } = await keep(setAside({ ...original, key: null, value: null, headers }))
      await decide('olga', redriven)
      expect(broker.published[0]?.[1]).toMatchObject({ key: id, value: Buffer.alloc(0) })
      expect(envelope(broker.published[0]?.[0])).not.toHaveProperty('traceparent', expect.anything())
    })

    test('is refused, and nothing recorded, for what is unknown, unreadable or too large', async () => {
      const large = setAside({ ...original, offset: 8, value: new Uint8Array(1024 * 1024) })
      const packed = setAside({ ...original, offset: 9, key: null, headers: [], unreadable: 'It is packed with zstd.' })
      const { decide, store } = await keep(unreadable, large, packed)
      await expect(decide('olga', redriven, 'unknown')).rejects.toMatchObject({ code: 'not-found' })
      await expect(decide('olga', redriven, unreadable.id)).rejects.toMatchObject({ code: 'conflict' })
      await expect(decide('olga', redriven, large.id)).rejects.toMatchObject({ code: 'conflict' })
      await expect(decide('olga', redriven, packed.id)).rejects.toMatchObject({
        code: 'conflict',
        message: expect.stringContaining('The message could not be read'),
      })
      expect(await store.deadLetters.unconfirmed({ limit: 9 })).toEqual([])
      expect(await decide('olga', discarded, large.id)).toMatchObject({ status: 'discarded' })
      expect(await decide('olga', discarded, packed.id)).toMatchObject({ status: 'discarded' })
    })
  })

  describe('a discard', () => {
    test('of a request publishes the event with who asked and why, and tells processor that its run is abandoned', async () => {
      const { decide } = await keep(setAside(original))
      expect(await decide('olga', discarded)).toMatchObject({
        status: 'discarded',
        decision: { to: 'discarded', event: `${id}.discarded`, by: 'olga', at: at(0), reason: 'A test of ours.' },
      })
      expect(broker.published.map((messages) => messages.map(envelope))).toMatchObject([
        [
          {
            id: `${id}.discarded`,
            type: 'posta.dead-letter.discarded',
            subject: 'op-1',
            data: { user: 'ana', deadLetter: id, by: 'olga', reason: 'A test of ours.' },
          },
          {
            id: `${id}.abandoned`,
            type: 'posta.operation.abandoned',
            time: at(0),
            subject: 'op-1',
            traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01',
            data: { user: 'ana', operation: 'op-1', operationType: sample.type, by: 'olga', deadLetter: id },
          },
        ],
      ])
      expect(broker.published[0]?.[1]).toMatchObject({ topic: 'posta.requests', key: 'ana' })
    })

    test('of a run that was stuck says which of its dead letters it is', async () => {
      const letter = setAside(original, 'It is stuck.', 0, 'posta.processor', 4)
      const { decide } = await keep(letter)
      await decide('olga', discarded, letter.id)
      expect(letter.id).toBe(`${id}.4`)
      expect(envelope(broker.published[0]?.[1])).toMatchObject({
        id: `${letter.id}.abandoned`,
        data: { operation: 'op-1', deadLetter: letter.id },
      })
    })

    test('of a redriven request tells so too', async () => {
      const again = {
        ...original,
        offset: 9,
        headers: [...original.headers, ['ce_redrive', Buffer.from('r')] as const],
      }
      const letter = setAside(again)
      const { decide } = await keep(letter)
      await decide('olga', discarded, letter.id)
      expect(broker.ids('ce_id')).toEqual([`${letter.id}.discarded`, `${letter.id}.abandoned`])
      expect(broker.ids('ce_redrive')).toEqual([])
    })

    test.each([
      ['of a result', setAside(deliver(succeeded('op-1')))],
      ['of what else is asked of processor', setAside(deliver(abandoned('op-1')))],
      ['of a request that is garbled', setAside({ ...original, value: Buffer.from('{') })],
      ['of a request without a value', setAside({ ...original, value: null })],
      ['of a request with the key of another user', setAside({ ...original, key: Buffer.from('bob') })],
      ['of a request that another group set aside', setAside(original, 'It failed.', 0, 'posta.monitor')],
    ])('%s publishes the event and nothing else', async (_, letter) => {
      const { decide } = await keep(letter)
      expect(await decide('olga', discarded, letter.id)).toMatchObject({ status: 'discarded' })
      expect(broker.ids('ce_id')).toEqual([`${letter.id}.discarded`])
    })

    test('is possible for what cannot be read, and refused for what is unknown', async () => {
      const { decide } = await keep(unreadable)
      expect(await decide('olga', discarded, unreadable.id)).toMatchObject({ status: 'discarded' })
      await expect(decide('olga', discarded, 'unknown')).rejects.toMatchObject({ code: 'not-found' })
    })
  })

  describe.each([
    ['redrive', redriven, discarded],
    ['discard', discarded, redriven],
  ] as const)('a %s', (_, choice, other) => {
    test('that was asked for twice is decided once, in the name of who asked first', async () => {
      const { decide } = await keep(setAside(original))
      const first = await decide('olga', choice)
      expect(await decide('oscar', choice)).toEqual(first)
      // A redrive that is asked for again is sent again, to the byte, in case the first was lost with its topic.
      const again = choice.to === 'redriven' ? [broker.published[0]] : []
      expect(broker.published).toEqual([broker.published[0] ?? [], ...again.flatMap((each) => (each ? [each] : []))])
    })

    test('that was carried out is not said to be pending when it is asked for again while the broker is down', async () => {
      const { decide } = await keep(setAside(original))
      await decide('olga', choice)
      broker.fail(new Error('The broker is down.'))
      const again = await decide('oscar', choice).catch((error: unknown) => error)
      if (choice.to === 'redriven')
        expect(again).toMatchObject({ code: 'overloaded', message: expect.stringContaining('It was sent before.') })
      else expect(again).toMatchObject({ status: 'discarded' })
    })

    test('that two operators ask one replica for at once is published once', async () => {
      const { store } = await keep(setAside(original))
      // Each reads before and after it records. The publish waits for both: on a slow store one could end before the other asks.
      const bothAsked = Promise.withResolvers<void>()
      let reads = 0
      const find: typeof store.deadLetters.find = async (ids) => {
        const found = await store.deadLetters.find(ids)
        if (++reads === 4) setImmediate(bothAsked.resolve)
        return found
      }
      const publish: typeof broker.publish = async (messages) => {
        await bothAsked.promise
        return broker.publish(messages)
      }
      const { decide } = replica({ ...store, deadLetters: { ...store.deadLetters, find } }, { publish })
      const asked = ['olga', 'oscar'].map((by) => decide({ id, by, choice }))
      const [first, second] = await Promise.all(asked)
      expect(first).toEqual(second)
      expect(new Set(broker.ids('ce_id')).size).toBe(broker.ids('ce_id').length)
    })

    test('excludes the other', async () => {
      const { decide } = await keep(setAside(original))
      await decide('olga', choice)
      await expect(decide('oscar', other)).rejects.toMatchObject({
        code: 'conflict',
        message: `It was ${choice.to} by olga at ${at(0)}.`,
      })
      expect(broker.published).toHaveLength(1)
    })

    test('is recorded before anything is published: after a failure it stands, and asking again publishes the same', async () => {
      const { decide, store } = await keep(setAside(original))
      broker.fail(new Error('The broker is down.'))
      await expect(decide('olga', choice)).rejects.toMatchObject({ code: 'overloaded', retryAfterS: 5 })
      expect(await store.deadLetters.get(id)).toMatchObject({ status: 'open', decision: { to: choice.to, by: 'olga' } })
      await expect(decide('oscar', other)).rejects.toMatchObject({ code: 'conflict' })
      broker.fail(undefined)
      expect(await decide('oscar', choice)).toMatchObject({ status: choice.to, decision: { by: 'olga' } })
      expect(broker.published).toHaveLength(1)
    })

    test('that a killed process published and did not confirm is published again, the same, by another', async () => {
      const { decide } = await keep(setAside(original))
      const { deadLetters } = here.open()
      const killed = createDecisions({
        deadLetters: { ...deadLetters, confirm: () => Promise.reject(new Error('Killed.')) },
        broker,
        deps: { now: () => NOON_MS },
      })
      await expect(killed.decide({ id, by: 'olga', choice })).rejects.toThrow()
      expect(await decide('oscar', choice)).toMatchObject({ status: choice.to, decision: { by: 'olga' } })
      expect(broker.published).toHaveLength(2)
      expect(broker.published[1]).toEqual(broker.published[0] ?? [])
    })
  })

  test('of a redrive and a discard at the same time, in two replicas, one is done and the other refused', async () => {
    const all = letters(8)
    await keep(...all)
    const [one, two] = [replica(), replica()]
    for (const letter of all) {
      const answers = await Promise.allSettled([
        one.decide({ id: letter.id, by: 'olga', choice: redriven }),
        two.decide({ id: letter.id, by: 'oscar', choice: discarded }),
      ])
      const winners = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value.status] : []))
      expect(winners).toHaveLength(1)
      const losers = answers.flatMap((answer) => (answer.status === 'rejected' ? [answer.reason] : []))
      expect(losers).toMatchObject([{ code: 'conflict' }])
      expect((await here.open().deadLetters.get(letter.id))?.status).toBe(winners[0] ?? 'open')
      expect(broker.ids('ce_id').filter((event) => event.startsWith(`${letter.id}.`))).toEqual([
        `${letter.id}.${winners[0]}`,
        ...(winners[0] === 'discarded' ? [`${letter.id}.abandoned`] : []),
      ])
    }
  })

  test('a decision about several is one publish, and has an outcome for each that exists', async () => {
    const [first, second, third] = letters(3)
    if (!first || !second || !third) throw new Error('there are three')
    const { decide, store } = await keep(first, second, third, unreadable)
    await decide('olga', discarded, first.id)
    await decide('olga', redriven, second.id)
    // The first read is stale: another operator's decisions, made in the meantime, count all the same.
    const stale = new Map([first, second, third, unreadable].map((each) => [each.id, each]))
    let reads = 0
    const { deadLetters } = store
    const find = async (ids: readonly string[]) => (reads++ === 0 ? stale : deadLetters.find(ids))
    const late = replica({ ...store, deadLetters: { ...deadLetters, find } })
    const outcomes = await late.decideAll([...stale.keys(), 'unknown'], 'oscar', redriven)
    expect(outcomes).toMatchObject([
      { result: 'refused', detail: `It was discarded by olga at ${at(0)}.` },
      { result: 'already', deadLetter: { status: 'redriven', decision: { by: 'olga' } } },
      { result: 'done', deadLetter: { status: 'redriven', decision: { by: 'oscar' } } },
      { result: 'refused' },
    ])
    expect(broker.published).toHaveLength(3)
  })
})
