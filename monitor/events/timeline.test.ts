import { describe, expect, test } from 'bun:test'
import { encode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { link, START } from '../audit/chain.ts'
import { at, deliver, failed, NOON_MS, requested, succeeded } from '../testing/messages.ts'
import type { EventFilter, StoredEvent } from './events.ts'
import { toEvent } from './record.ts'
import { show } from './show.ts'
import { createTimeline, stepsOf } from './timeline.ts'

const deadLettered = (deadLetter: string, ms: number, user?: string) =>
  encode({
    id: `${deadLetter}.dead-lettered`,
    type: 'posta.message.dead-lettered',
    time: at(ms),
    subject: 'op-1',
    data: {
      user,
      deadLetter,
      group: 'posta.processor',
      topic: 'posta.requests',
      partition: 0,
      offset: 0,
      reason: 'It failed.',
    },
  })

const redriven = (deadLetter: string, ms: number) =>
  encode({
    id: `${deadLetter}.redriven`,
    type: 'posta.dead-letter.redriven',
    time: at(ms),
    subject: 'op-1',
    data: { user: 'ana', deadLetter, by: 'olga' },
  })

const stored = (...messages: Outgoing[]): StoredEvent[] =>
  link(
    START,
    messages.map((message, offset) => toEvent(deliver(message, offset), NOON_MS)),
  )

const idsOf = (...messages: Outgoing[]) => stepsOf(stored(...messages).map(show)).items.map(({ id }) => id)

describe('the steps of an operation', () => {
  test('say what happened, where the broker holds the message, and after how long', () => {
    expect(stepsOf(stored(requested('op-1', 'ana', 0), succeeded('op-1', 'ana', 40)).map(show))).toEqual({
      totalMs: 40,
      items: [
        {
          id: 'op-1.requested',
          type: 'posta.operation.requested',
          time: at(0),
          topic: 'posta.requests',
          partition: 0,
          offset: 0,
          sincePreviousMs: 0,
        },
        {
          id: 'op-1.succeeded',
          type: 'posta.operation.succeeded',
          time: at(40),
          topic: 'posta.results',
          partition: 0,
          offset: 1,
          sincePreviousMs: 40,
        },
      ],
    })
  })

  test('take no time, and say so, where a clock is behind another', () => {
    const { totalMs, items } = stepsOf(stored(succeeded('op-1', 'ana', -40), requested('op-1', 'ana', 0)).map(show))
    expect(items.map(({ id }) => id)).toEqual(['op-1.requested', 'op-1.succeeded'])
    expect(items[1]).toMatchObject({ sincePreviousMs: 0, clockSkew: true })
    expect(totalMs).toBe(0)
  })

  const whole = [
    requested('op-1', 'ana', 0),
    deadLettered('d1', 20),
    failed('op-1', 'ana', 20),
    redriven('d1', 5000),
    succeeded('op-1', 'ana', 5030, 'd1.redriven'),
  ]
  const order = ['op-1.requested', 'd1.dead-lettered', 'op-1.failed', 'd1.redriven', 'op-1.succeeded']

  test('are in causal order through a redrive, in whatever order the events are stored', () => {
    expect(idsOf(...whole)).toEqual(order)
    expect(idsOf(...whole.toReversed())).toEqual(order)
  })

  test('are in causal order even where the clocks differ', () => {
    expect(
      idsOf(
        succeeded('op-1', 'ana', -9000, 'd1.redriven'),
        redriven('d1', -5000),
        failed('op-1', 'ana', -7000),
        deadLettered('d1', 9000),
        requested('op-1', 'ana', 0),
      ),
    ).toEqual(order)
  })

  test('are in causal order through several redrives', () => {
    const failedAgain = encode({
      ...{ id: 'op-1.d1', time: at(5020), subject: 'op-1', redrive: 'd1.redriven' },
      type: 'posta.operation.failed',
      data: {
        ...{ user: 'ana', operation: 'op-1', operationType: 'convert', createdAt: at(0), completedAt: at(20) },
        error: { code: 'dead-lettered', message: 'Its message could not be processed.' },
      },
    })
    const last = succeeded('op-1', 'ana', 9030, 'd2.redriven')
    const messages = [last, redriven('d2', 9000), failedAgain, deadLettered('d2', 5010), ...whole.slice(0, 4)]
    expect(idsOf(...messages)).toEqual([
      ...order.slice(0, 4),
      'd2.dead-lettered',
      'op-1.d1',
      'd2.redriven',
      'op-1.succeeded',
    ])
  })

  test('have a discarded dead letter after the redrive that led to it', () => {
    const discarded = encode({
      id: 'd2.discarded',
      type: 'posta.dead-letter.discarded',
      time: at(9000),
      subject: 'op-1',
      data: { user: 'ana', deadLetter: 'd2', by: 'olga', reason: 'It is not needed any more.' },
    })
    expect(idsOf(discarded, deadLettered('d2', 5010), ...whole.slice(0, 4))).toEqual([
      ...order.slice(0, 4),
      'd2.dead-lettered',
      'd2.discarded',
    ])
  })

  test('have a dead letter that was not redriven where its time says', () => {
    expect(idsOf(deadLettered('d2', 5010), redriven('d1', 5000), deadLettered('d1', 20), requested('op-1'))).toEqual([
      'op-1.requested',
      'd1.dead-lettered',
      'd1.redriven',
      'd2.dead-lettered',
    ])
  })
})

describe('a timeline', () => {
  const timelineOf = (events: StoredEvent[], asked: EventFilter[] = []) =>
    createTimeline({
      list: async (filter) => {
        asked.push(filter)
        return events
      },
    })

  test('is answered to the user of its events and to operators, and to nobody else', async () => {
    const timeline = timelineOf(stored(requested('op-1', 'ana'), succeeded('op-1', 'ana'), deadLettered('d1', 20)))
    expect(await timeline('op-1', 'ana')).toMatchObject({ operation: 'op-1', user: 'ana' })
    expect(await timeline('op-1', undefined)).toMatchObject({ items: [{}, {}, {}] })
    expect(await timeline('op-1', 'bob')).toBeUndefined()
    expect(await timelineOf([])('op-1', undefined)).toBeUndefined()
  })

  test('is answered to operators only where its events name several users, or none', async () => {
    const several = timelineOf(stored(requested('op-1', 'ana'), succeeded('op-1', 'bob')))
    expect(await several('op-1', 'ana')).toBeUndefined()
    expect(await several('op-1', 'bob')).toBeUndefined()
    const none = timelineOf(stored(deadLettered('d1', 20)))
    expect(await none('op-1', 'ana')).toBeUndefined()
    expect(await none('op-1', undefined)).toMatchObject({ items: [{ id: 'd1.dead-lettered' }] })
  })

  test('reads only the events of the operation', async () => {
    const asked: EventFilter[] = []
    await timelineOf([], asked)('op-1', undefined)
    expect(asked).toEqual([{ operation: 'op-1' }])
  })
})
