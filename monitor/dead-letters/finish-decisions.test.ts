import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { MessageTooLarge } from '@posta/common/broker/broker.ts'
import type { Outgoing } from '@posta/common/messages/message.ts'
import type { Component } from '@posta/common/service/component.ts'
import { createLog } from '@posta/common/service/log.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import type { Store } from '../store/store.ts'
import { fakeBroker, letters, stores } from '../testing/dead-letters.ts'
import { NOON_MS } from '../testing/messages.ts'
import type { Decision } from './dead-letters.ts'
import { createDecisions } from './decisions.ts'
import { finishDecisions } from './finish-decisions.ts'

const log = createLog('monitor', 'silent')

describe.each(stores)('with the %s store', (_, fresh) => {
  let here: ReturnType<typeof fresh>
  let running: Component[]
  let store: Store
  let broker: ReturnType<typeof fakeBroker>

  beforeEach(() => {
    here = fresh()
    running = []
    store = here.open()
    broker = fakeBroker()
  })
  afterEach(async () => {
    for (const component of running) await component.close?.(1000)
    await here.dispose()
  })

  async function startReplica(publish = broker.publish): Promise<void> {
    const { deadLetters } = here.open()
    const decisions = createDecisions({ deadLetters, broker: { publish }, deps: { now: () => NOON_MS } })
    const component = finishDecisions({ deadLetters, decisions, log, everyMs: 20 })
    running.push(component)
    await component.start?.()
  }

  /** As a process leaves it that is killed between the record and the publish: redrives, and every third a discard. */
  async function leaveHalfWay(count: number): Promise<string[]> {
    const all = letters(count)
    await store.deadLetters.add(all)
    const decisions = all.map(({ id }, n) => {
      const common = { by: 'olga', at: new Date(NOON_MS).toISOString() }
      const decision: Decision =
        n % 3 === 2
          ? { ...common, to: 'discarded', event: `${id}.discarded`, reason: 'A test.' }
          : { ...common, to: 'redriven', event: `${id}.redriven` }
      return { id, decision }
    })
    await store.deadLetters.decide(decisions)
    return decisions.map(({ decision }) => decision.event)
  }

  async function untilFinished(left = 0): Promise<void> {
    await eventually(async () => (await store.deadLetters.unconfirmed({ limit: 100 })).length <= left)
  }

  test('decisions that were recorded and not published are carried out, more than a page of them', async () => {
    const events = await leaveHalfWay(25)
    await startReplica()
    await untilFinished()
    const published = broker.ids('ce_id').filter((id) => events.includes(id))
    expect(published.toSorted()).toEqual(events.toSorted())
    const abandoned = events
      .filter((id) => id.endsWith('.discarded'))
      .map((id) => id.replace(/discarded$/, 'abandoned'))
    expect(
      broker
        .ids('ce_id')
        .filter((id) => id.endsWith('.abandoned'))
        .toSorted(),
    ).toEqual(abandoned.toSorted())
    const found = await store.deadLetters.list({}, { limit: 50 })
    for (const { status, decision } of found) expect(status).toBe(decision?.to ?? 'open')
  })

  test('several replicas that help at once publish the same messages, and it ends', async () => {
    const events = await leaveHalfWay(6)
    for (let replica = 0; replica < 3; replica++) await startReplica()
    await untilFinished()
    expect(new Set(broker.ids('ce_id').filter((id) => events.includes(id)))).toEqual(new Set(events))
    const byId = Map.groupBy(broker.published.flat(), ({ headers }) =>
      String(headers.find(([name]) => name === 'ce_id')?.[1]),
    )
    for (const [first, ...others] of byId.values()) for (const other of others) expect(other).toEqual(first as Outgoing)
  })

  test('while the broker is down they are tried again, until they are carried out', async () => {
    await leaveHalfWay(3)
    let attempts = 0
    const failing = Promise.withResolvers<void>()
    broker.fail(new Error('The broker is down.'))
    await startReplica((messages) => {
      attempts++
      if (attempts === 2) failing.resolve()
      return broker.publish(messages)
    })
    await failing.promise
    expect(await store.deadLetters.unconfirmed({ limit: 9 })).toHaveLength(3)
    broker.fail(undefined)
    await untilFinished()
  })

  test('one that can never be sent is tried once, and does not hold up the others', async () => {
    await leaveHalfWay(3)
    let refusals = 0
    await startReplica(async (messages) => {
      if (!messages.some(({ headers }) => headers.some(([name]) => name === 'ce_redrive')))
        return broker.publish(messages)
      refusals++
      throw new MessageTooLarge('It has 2 bytes.')
    })
    await untilFinished(2)
    await startReplica()
    await untilFinished()
    expect(refusals).toBe(2)
  })

  test('what is decided and carried out at once is left alone', async () => {
    await startReplica()
    const [letter] = letters(1)
    if (!letter) throw new Error('there is one')
    await store.deadLetters.add([letter])
    const { decide } = createDecisions({ deadLetters: store.deadLetters, broker, deps: { now: () => NOON_MS } })
    await decide({ id: letter.id, by: 'olga', choice: { to: 'redriven' } })
    expect(await store.deadLetters.unconfirmed({ limit: 9 })).toEqual([])
    expect(broker.published).toHaveLength(1)
  })
})
