import { describe, expect, test } from 'bun:test'
import { deadLetterId } from '@posta/common/messages/dead-letter.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { link, START } from '../audit/chain.ts'
import { abandoned, at, deliver, failed, NOON_MS, progressed, requested, succeeded } from '../testing/messages.ts'
import type { Events, StoredEvent } from './events.ts'
import { toEvent } from './record.ts'
import { show } from './show.ts'
import { createTimeline, itemsOf } from './timeline.ts'

const deadLettered = (
  deadLetter: string,
  ms: number,
  user?: string,
  topic: 'posta.requests' | 'posta.results' = 'posta.requests',
) =>
  encode({
    id: `${deadLetter}.dead-lettered`,
    type: 'posta.message.dead-lettered',
    time: at(ms),
    subject: 'op-1',
    data: {
      user,
      deadLetter,
      group: 'posta.processor',
      topic,
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

const discarded = (deadLetter: string, ms: number) =>
  encode({
    id: `${deadLetter}.discarded`,
    type: 'posta.dead-letter.discarded',
    time: at(ms),
    subject: 'op-1',
    data: { user: 'ana', deadLetter, by: 'olga', reason: 'It is not needed any more.' },
  })

const owned = { user: 'ana', operation: 'op-1', operationType: sample.type } as const

const cancelRequested = (ms: number) =>
  encode({
    ...{ id: 'op-1.cancel', time: at(ms), subject: 'op-1' },
    type: 'posta.operation.cancel-requested',
    data: { ...owned, by: 'ana' },
  })

const signalled = (ms: number) =>
  encode({
    ...{ id: 'op-1.signal.approve', time: at(ms), subject: 'op-1' },
    type: 'posta.operation.signalled',
    data: { ...owned, by: 'olga', signal: 'approve', payload: { approved: true } },
  })

/** The outcome of a run, which names the redrive that began the run, if one did. */
const failedWith = (code: 'cancelled' | 'dead-lettered', ms: number, redrive?: string) =>
  encode({
    ...{ id: `op-1.${redrive ?? 'result'}`, time: at(ms), subject: 'op-1', redrive },
    type: 'posta.operation.failed',
    data: { ...owned, error: { code, message: 'It failed.' }, createdAt: at(0), completedAt: at(ms) },
  })

const stored = (...messages: Outgoing[]): StoredEvent[] =>
  link(
    START,
    messages.map((message, offset) => toEvent(deliver(message, offset), NOON_MS)),
  )

const idsOf = (...messages: Outgoing[]) => itemsOf(stored(...messages).map(show)).items.map(({ id }) => id)

describe('the items of a timeline', () => {
  test('say what happened, where the broker holds the message, and after how long', () => {
    expect(itemsOf(stored(requested('op-1', 'ana', 0), succeeded('op-1', 'ana', 40)).map(show))).toEqual({
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
    const { totalMs, items } = itemsOf(stored(succeeded('op-1', 'ana', -40), requested('op-1', 'ana', 0)).map(show))
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
    const failedAgain = failedWith('dead-lettered', 5020, 'd1.redriven')
    const last = succeeded('op-1', 'ana', 9030, 'd2.redriven')
    const messages = [last, redriven('d2', 9000), failedAgain, deadLettered('d2', 5010), ...whole.slice(0, 4)]
    expect(idsOf(...messages)).toEqual([
      ...order.slice(0, 4),
      'd2.dead-lettered',
      'op-1.d1.redriven',
      'd2.redriven',
      'op-1.succeeded',
    ])
  })

  test('have a discarded dead letter after the redrive that led to it', () => {
    expect(idsOf(discarded('d2', 9000), deadLettered('d2', 5010), ...whole.slice(0, 4))).toEqual([
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

describe('the items of an operation in steps', () => {
  /** The dead letters of a run that was stuck at its records 3 and 6. */
  const [d1, d2] = [deadLetterId(deliver(requested('op-1'), 7), 3), deadLetterId(deliver(requested('op-1'), 7), 6)]

  /** Expects the events in this order, in whatever order they are stored. */
  function expectOrder(...messages: Outgoing[]) {
    const order = stored(...messages).map(({ id }) => id)
    expect(idsOf(...messages)).toEqual(order)
    expect(idsOf(...messages.toReversed())).toEqual(order)
    expect(idsOf(...messages.toSorted((a, b) => String(a.value).length - String(b.value).length))).toEqual(order)
  }

  test('say which step, in what state, which answer, and who asked', () => {
    const { items } = itemsOf(
      stored(
        requested('op-1'),
        progressed('op-1', 1, 20, { step: 'approve', status: 'waiting' }),
        signalled(30),
        cancelRequested(40),
      ).map(show),
    )
    expect(items).toMatchObject([
      { id: 'op-1.requested' },
      { id: 'op-1.progress.1', step: 'approve', status: 'waiting' },
      { id: 'op-1.signal.approve', signal: 'approve', by: 'olga' },
      { id: 'op-1.cancel', by: 'ana' },
    ])
    expect(items[0]).not.toHaveProperty('by')
    expect(items[1]).not.toHaveProperty('by')
    expect(items[2]).not.toHaveProperty('step')
  })

  test('have the progress between request and outcome, in the order of its numbers', () => {
    expectOrder(
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 20),
      progressed('op-1', 2, 20),
      progressed('op-1', 10, 30),
      succeeded('op-1', 'ana', 40),
    )
  })

  test('have it so even where the clocks of the processors differ, or are behind that of gateway', () => {
    expectOrder(
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 9000),
      progressed('op-1', 2, -9000),
      progressed('op-1', 3, 9000),
      succeeded('op-1', 'ana', -20),
    )
  })

  test('have cancels and answers where their time says', () => {
    expectOrder(
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 20, { status: 'waiting' }),
      signalled(5000),
      progressed('op-1', 2, 5010),
      cancelRequested(5020),
      progressed('op-1', 3, 5030, { status: 'undone' }),
      failedWith('cancelled', 5040),
    )
    expectOrder(requested('op-1'), progressed('op-1', 1, 20), succeeded('op-1'), cancelRequested(50))
  })

  test('have no cancel before the request, nor after an outcome that is later', () => {
    expectOrder(requested('op-1', 'ana', 0), cancelRequested(-9000), progressed('op-1', 1, 20), succeeded('op-1'))
    expectOrder(
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 20),
      cancelRequested(35),
      failedWith('cancelled', 40),
    )
  })

  test('have what a run did after a redrive behind the redrive, though nothing names it', () => {
    expectOrder(
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 20),
      deadLettered(d1, 40),
      redriven(d1, 5000),
      progressed('op-1', 4, 5010),
      deadLettered(d2, 5020),
      redriven(d2, 9000),
      progressed('op-1', 7, 9010),
      succeeded('op-1', 'ana', 9020),
    )
  })

  test("have it so even where monitor's clock is ahead or behind", () => {
    for (const ms of [-9000, 9000])
      expectOrder(
        requested('op-1', 'ana', 0),
        progressed('op-1', 1, 20),
        deadLettered(d1, 40),
        redriven(d1, 5000 + ms),
        progressed('op-1', 4, 5010),
        deadLettered(d2, 5020),
        redriven(d2, 6000 + ms),
        progressed('op-1', 7, 6010),
        succeeded('op-1', 'ana', 6020),
      )
  })

  test('have it so even where the clock of one processor is ahead, and that of another behind', () => {
    expectOrder(
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 900_000),
      progressed('op-1', 2, 20),
      deadLettered(d1, 40),
      redriven(d1, 50),
      progressed('op-1', 4, 60),
      progressed('op-1', 5, -900_000),
      succeeded('op-1', 'ana', -900_000),
    )
    expectOrder(
      requested('op-1', 'ana', 0),
      deadLettered(d1, 40),
      redriven(d1, 5000),
      deadLettered(d2, -900_000),
      redriven(d2, 9000),
      progressed('op-1', 7, 9010),
      succeeded('op-1', 'ana', 9020),
    )
  })

  test('have the outcome last also where it names the redrive that began the run, and the run was stuck later', () => {
    expectOrder(
      requested('op-1', 'ana', 0),
      deadLettered('d0', 20),
      failedWith('dead-lettered', 25),
      redriven('d0', 2000),
      progressed('op-1', 1, 2010),
      deadLettered(d1, 2040),
      redriven(d1, 5000),
      progressed('op-1', 4, 5010),
      succeeded('op-1', 'ana', 5020, 'd0.redriven'),
    )
  })

  test('have it last also where the run made no progress, or failed as its request had', () => {
    expectOrder(
      requested('op-1', 'ana', 0),
      deadLettered(d1, 20),
      redriven(d1, 5000),
      cancelRequested(6000),
      failedWith('cancelled', 6010),
    )
    expectOrder(
      requested('op-1', 'ana', 0),
      deadLettered('d0', 20),
      failedWith('dead-lettered', 25),
      redriven('d0', 2000),
      progressed('op-1', 1, 2010),
      deadLettered(d1, 2040),
      redriven(d1, 5000),
      progressed('op-1', 4, 5010),
      failedWith('dead-lettered', 5020, 'd0.redriven'),
    )
  })

  test("have the failure of an abandoned run behind the discard, even where monitor's clock is ahead", () => {
    for (const ms of [0, 9000])
      expectOrder(
        requested('op-1', 'ana', 0),
        progressed('op-1', 1, 20),
        deadLettered(d1, 40),
        discarded(d1, 5000 + ms),
        abandoned('op-1', d1, 5000 + ms),
        failedWith('dead-lettered', 5010),
      )
    const undone = progressed('op-1', 4, 5005, { status: 'undone' })
    expectOrder(
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 20),
      deadLettered(d1, 40),
      discarded(d1, 5000),
      abandoned('op-1', d1, 5000),
      undone,
      failedWith('dead-lettered', 5010),
    )
    const neverBegun = [requested('op-1', 'ana', 0), deadLettered(d1, 40), discarded(d1, 5000)]
    expectOrder(...neverBegun, abandoned('op-1', d1, 5000), failedWith('dead-lettered', 5010))
  })

  test('have the failure of a request that was dead-lettered before the discard', () => {
    expectOrder(
      requested('op-1', 'ana', 0),
      deadLettered('d1', 20),
      failedWith('dead-lettered', 25),
      discarded('d1', 5000),
      abandoned('op-1', 'd1', 5000),
    )
  })

  test("take no dead letter of another service's for the run's", () => {
    expectOrder(
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 20),
      progressed('op-1', 2, 4000),
      deadLettered('d1', 40, 'ana', 'posta.results'),
      redriven('d1', 5000),
      progressed('op-1', 3, 5010),
      succeeded('op-1', 'ana', 5020),
    )
  })

  test('have a decision that came after the end behind the end', () => {
    const cancelled = [
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 20),
      deadLettered(d1, 40),
      cancelRequested(5000),
      failedWith('cancelled', 5020),
    ]
    expectOrder(...cancelled, discarded(d1, 900_000), abandoned('op-1', d1, 900_000))
    expectOrder(
      requested('op-1', 'ana', 0),
      progressed('op-1', 1, 20),
      deadLettered(d1, 40),
      cancelRequested(5000),
      progressed('op-1', 4, 5010, { status: 'undone' }),
      failedWith('cancelled', 5020),
      redriven(d1, 900_000),
      failedWith('cancelled', 5020, `${d1}.redriven`),
    )
  })
})

describe('a timeline', () => {
  const timelineOf = (events: StoredEvent[]) => createTimeline({ list: async () => events })

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

  /** The newest first, as a store lists them, and what was asked of the store. */
  function listing(events: StoredEvent[]) {
    const newestFirst = events.toReversed()
    const limits: number[] = []
    const list: Events['list'] = async (filter, { limit, before }) => {
      expect(filter).toEqual({ operation: 'op-1' })
      limits.push(limit)
      const start = before ? newestFirst.findIndex(({ id }) => id === before.id) + 1 : 0
      return newestFirst.slice(start, start + limit)
    }
    return { timeline: createTimeline({ list }), limits }
  }

  const longRun = (steps: number) =>
    stored(requested('op-1', 'ana', 0), ...Array.from({ length: steps }, (_, n) => progressed('op-1', n, n + 1)))

  test('holds every event of an operation of 1,000 steps that were all waited for, done and undone', async () => {
    const { timeline, limits } = listing(longRun(3000))
    const found = await timeline('op-1', 'ana')
    expect(found?.items.map(({ id }) => id)).toEqual(longRun(3000).map(({ id }) => id))
    expect(found).not.toHaveProperty('incomplete')
    expect(Math.max(...limits)).toBe(500)
  })

  test('says so where it leaves out the oldest events, above 5,000', async () => {
    expect(await listing(longRun(4999)).timeline('op-1', 'ana')).not.toHaveProperty('incomplete')
    const { timeline, limits } = listing(longRun(9000))
    const found = await timeline('op-1', 'ana')
    expect(found).toMatchObject({ incomplete: true, user: 'ana' })
    expect(found?.items).toHaveLength(5000)
    expect([found?.items[0]?.id, found?.items.at(-1)?.id]).toEqual(['op-1.progress.4000', 'op-1.progress.8999'])
    expect(limits.reduce((sum, limit) => sum + limit, 0)).toBe(5001)
  })
})
