import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import * as v from 'valibot'
import type { Header } from '../../common/messages/message.ts'
import { topics } from '../../common/messages/topics.ts'
import type { Service } from '../../common/service/service.ts'
import { sample } from '../../common/testing/sample.ts'
import { askUntil, call, expectBody } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { breakSample } from '../testing/break-sample.ts'
import { deadLettersOf, expectRedriven, redrive } from '../testing/dead-letters.ts'
import { type Foreign, publishForeign } from '../testing/foreign-client.ts'
import { holdLocks } from '../testing/hold-locks.ts'
import {
  expectAllSucceed,
  Operation,
  outcomeOf,
  submissionOf,
  submitMany,
  timelineOf,
  untilFailing,
} from '../testing/operations.ts'
import { describeLong, describeOnParts, embeddedParts, type MakeParts, type Parts } from '../testing/parts.ts'
import { newOperator, newUser } from '../testing/users.ts'

describeOnParts(describe, describeFaults)

/** What becomes of messages that should not be there. */
function describeFaults(makeParts: MakeParts): void {
  describe('a message that cannot be handled:', () => {
    let parts: Parts
    let system: System
    let operator: string
    let repaired: Service | undefined

    beforeAll(async () => {
      parts = await makeParts()
      system = await startInProcess(parts.environment)
      operator = await newOperator(parts.environment, system.gatewayUrl)
    }, 60_000)
    afterAll(async () => {
      await system.close()
      await repaired?.close()
      await parts.dispose()
    }, 60_000)

    test('poison on every topic becomes dead letters, and messages after it are handled', async () => {
      const { gatewayUrl, monitorUrl } = system
      const user = await newUser(gatewayUrl)
      const before = await submitMany(gatewayUrl, user.token, 3)
      const poison = poisonFor(user.id).filter(
        ({ key, value }) => parts.environment.BROKER_URL !== undefined || (key !== null && value !== null),
      )
      await publishForeign(parts.environment, poison, user.id)
      const after = await submitMany(gatewayUrl, user.token, 3)
      await expectAllSucceed(system, user.token, [...before, ...after], 30_000)

      const found = await deadLettersOf(monitorUrl, operator, poison.length)
      const setAsideBy = { requests: 'processor', results: 'gateway', events: 'monitor' } as const
      for (const [topic, service] of Object.entries(setAsideBy)) {
        const ofTopic = found.filter((each) => each.topic === `posta.${topic}`)
        expect(ofTopic).toHaveLength(poison.filter((each) => each.topic === `posta.${topic}`).length)
        for (const each of ofTopic)
          expect(each).toMatchObject({ group: `posta.${service}`, status: 'open', redrivable: true })
      }
      // Unreadable dead letters are stored only: published again, they would come back for ever.
      const unreadable = found.filter(({ topic }) => topic === topics.deadLetters)
      expect(unreadable).toHaveLength(poison.filter(({ topic }) => topic === topics.deadLetters).length)
      for (const each of unreadable) {
        expect(each).toMatchObject({ status: 'open', redrivable: false })
        expect(await redrive(monitorUrl, operator, each.id)).toMatchObject({ status: 409, body: { code: 'conflict' } })
      }
      for (const { reason } of found) {
        expect(reason.length).toBeGreaterThan(20)
        expect(reason).not.toContain(SECRET)
      }

      // Redriven unchanged it is still poison: it becomes one more dead letter, and no other message does.
      const [request] = found.filter(({ topic }) => topic === topics.requests)
      expect(expectRedriven(await redrive(monitorUrl, operator, request?.id ?? '')).status).toBe('redriven')
      expect(await deadLettersOf(monitorUrl, operator, poison.length + 1)).toHaveLength(poison.length + 1)
      await expectAllSucceed(system, user.token, await submitMany(gatewayUrl, user.token, 1))
      expect(await deadLettersOf(monitorUrl, operator, poison.length + 1)).toHaveLength(poison.length + 1)
      expect(await call('GET', `${monitorUrl}/audit/verify`, { token: operator })).toMatchObject({ body: { ok: true } })
      for (const url of [gatewayUrl, system.processorUrl, monitorUrl]) await untilFailing(url, [])
    }, 60_000)

    test('an operation that failed by dead letter succeeds by redrive, once, however many are asked for', async () => {
      const { gatewayUrl, processorUrl, monitorUrl } = system
      const user = await newUser(gatewayUrl)
      const operatorId = expectBody(
        await call('GET', `${gatewayUrl}/auth/me`, { token: operator }),
        200,
        v.object({ id: v.string() }),
      ).id
      const submit = (n: number) =>
        call('POST', `${gatewayUrl}/operations`, {
          token: user.token,
          body: submissionOf(n),
          headers: { 'Idempotency-Key': `order-of-${n}` },
        })

      const repair = await breakSample(system)
      const { id } = expectBody(await submit(6000), 202, Operation)
      expect(await outcomeOf(gatewayUrl, user.token, id, 30_000)).toMatchObject({
        status: 'failed',
        error: { code: 'dead-lettered' },
      })
      repaired = await repair()

      await timelineOf(monitorUrl, user.token, id, 3)
      const letters = await deadLettersOf(monitorUrl, operator, 1)
      const letter = letters.find(({ operation }) => operation === id)
      expect(letter).toMatchObject({ status: 'open', topic: topics.requests, group: 'posta.processor', user: user.id })
      expect(letter?.reason).toContain(`Performing ${sample.type} failed: It was released too early.`)
      const letterId = letter?.id ?? ''
      expect(await redrive(monitorUrl, user.token, letterId)).toMatchObject({
        status: 403,
        body: { code: 'forbidden' },
      })

      const asked = await Promise.all([1, 2].map(() => redrive(monitorUrl, operator, letterId)))
      const succeeded = await askUntil(
        () => call('GET', `${gatewayUrl}/operations/${id}`, { token: user.token }),
        (answer) => expectBody(answer, 200, Operation).status === 'succeeded',
        30_000,
      )
      expect(succeeded.body).not.toHaveProperty('error')
      asked.push(await redrive(monitorUrl, operator, letterId))
      for (const answer of asked)
        expect(expectRedriven(answer)).toMatchObject({
          status: 'redriven',
          redrive: { ...expectRedriven(asked[0] ?? answer).redrive, by: operatorId },
        })

      // example {
      // The 6000 USD counted once: 4000 of the day's 10000 USD are left.
      const next = expectBody(await submit(4000), 202, Operation)
      expect((await outcomeOf(gatewayUrl, user.token, next.id)).status).toBe('succeeded')
      const over = expectBody(await submit(1), 202, Operation)
      expect((await outcomeOf(gatewayUrl, user.token, over.id)).error?.code).toBe('limit-exceeded')
      await timelineOf(monitorUrl, user.token, over.id, 2)
      // }
      expect(await submit(6000)).toMatchObject({ body: { id, status: 'succeeded' } })
      expect(await call('GET', `${processorUrl}/results/${id}`, { token: user.token })).toMatchObject({
        body: { status: 'succeeded' },
      })

      expect(await timelineOf(monitorUrl, user.token, id, 5)).toEqual([
        'posta.operation.requested',
        'posta.message.dead-lettered',
        'posta.operation.failed',
        'posta.dead-letter.redriven',
        'posta.operation.succeeded',
      ])
      const events = await call('GET', `${monitorUrl}/events?operation=${id}&type=posta.dead-letter.redriven`, {
        token: user.token,
      })
      expect(events.body).toMatchObject({
        items: [{ user: user.id, data: { user: user.id, deadLetter: letterId, by: operatorId } }],
      })
    }, 60_000)
  })
}

const SECRET = 'not to be repeated'
/** More than a service ever sends, and less than a topic's limit. */
const LARGE_BYTES = 900_000

/** Every kind of bad message, on every topic, for the partitions in which `user` has operations. */
function poisonFor(user: string): Foreign[] {
  const time = new Date().toISOString()
  const types = {
    [topics.requests]: 'posta.operation.requested',
    [topics.results]: 'posta.operation.succeeded',
    [topics.events]: 'posta.user.logged-in',
  }
  const headersOf = (type: string, more: Record<string, string> = {}): Header[] => {
    const all = {
      ce_specversion: '1.0',
      ce_id: Bun.randomUUIDv7(),
      ce_source: '/foreign',
      ce_type: type,
      ce_time: time,
    }
    return Object.entries({ ...all, ...more }).map(([name, text]) => [name, Buffer.from(text)])
  }
  const json = (value: unknown) => Buffer.from(JSON.stringify(value))
  const onEach = Object.entries(types).flatMap(([name, type]): Foreign[] => {
    const message = { topic: v.parse(v.picklist(Object.values(topics)), name), key: user }
    return [
      { ...message, value: Buffer.from(`{"user": "${SECRET}`), headers: headersOf(type) },
      { ...message, value: Buffer.from([0xff, 0xfe, 0x00]), headers: headersOf(type) },
      { ...message, value: json({ secret: SECRET }), headers: headersOf(type) },
      { ...message, value: json([]), headers: headersOf(type) },
      { ...message, value: new Uint8Array(), headers: headersOf(type) },
      { ...message, value: json({ user }), headers: [] },
      { ...message, value: json({ user, session: '1' }), headers: headersOf('posta.key.rotated.twice') },
      { ...message, value: json({ user, session: '1' }), headers: headersOf(type, { ce_time: 'yesterday' }) },
      { ...message, value: Buffer.alloc(LARGE_BYTES, 'x'), headers: headersOf(type) },
      { ...message, value: json({ user }), headers: [...headersOf(type), ['constructor', Buffer.from([0xff])]] },
      { ...message, value: null, headers: headersOf(type) },
      { ...message, key: null, value: json({ secret: SECRET }), headers: headersOf(type) },
    ]
  })
  const result = { user, operation: Bun.randomUUIDv7(), operationType: sample.type, createdAt: time, completedAt: time }
  const output = sample.output()
  const letter = { topic: topics.deadLetters, key: 'garbage', value: Buffer.from(SECRET), headers: [] }
  const forged = { id: 'posta.requests.0.1.1', group: 'posta.processor', reason: SECRET, topic: topics.requests }
  const facts = { ...forged, partition: '0', offset: '2', timestamp: '1' }
  return [
    ...onEach,
    // A result of an operation that gateway does not know.
    { topic: topics.results, key: user, value: json({ ...result, output }), headers: headersOf(types[topics.results]) },
    // A request under another user's key, which would lose its order.
    {
      topic: topics.requests,
      key: 'another',
      value: json({
        ...result,
        input: sample.input(),
        facts: sample.facts,
      }),
      headers: headersOf(types[topics.requests]),
    },
    letter,
    { ...letter, value: json({ secret: SECRET }) },
    { ...letter, headers: Object.entries(facts).map(([name, text]) => [`posta-${name}`, Buffer.from(text)]) },
    { ...letter, value: null },
    { ...letter, key: null },
  ]
}

describeLong('while another process keeps files locked for a second', () => {
  let parts: Parts
  let system: System

  beforeAll(async () => {
    parts = await embeddedParts()
    system = await startInProcess(parts.environment)
  }, 30_000)
  afterAll(async () => {
    await system.close()
    await parts.dispose()
  }, 30_000)

  /** Runs `look` again and again for a second, while another process keeps the files locked. */
  function whileLocked(names: readonly string[], look: () => Promise<void>): Promise<void> {
    const paths = names.map((name) => join(parts.dataDir, name))
    return holdLocks(paths, async () => {
      const startedMs = performance.now()
      while (performance.now() - startedMs < 1000) {
        await look()
        await Bun.sleep(20)
      }
    })
  }

  test('those of processor and monitor: operations are accepted, stay pending, and succeed afterwards', async () => {
    const { token } = await newUser(system.gatewayUrl)
    const ids: string[] = []
    await whileLocked(['processor.db', 'monitor.db'], async () => {
      if (ids.length < 10) ids.push(...(await submitMany(system.gatewayUrl, token, 1)))
      for (const id of ids)
        expect(await call('GET', `${system.gatewayUrl}/operations/${id}`, { token })).toMatchObject({
          body: { status: 'pending' },
        })
    })
    await expectAllSucceed(system, token, ids)
  }, 30_000)

  test('those of gateway and the broker: each submission is accepted late, and once', async () => {
    const { token } = await newUser(system.gatewayUrl)
    const submitted: Promise<string[]>[] = []
    await whileLocked(['gateway.db', 'broker.db'], async () => {
      if (submitted.length < 10) submitted.push(submitMany(system.gatewayUrl, token, 1))
      expect((await call('GET', `${system.gatewayUrl}/operations`, { token })).body).toEqual({ items: [] })
    })
    const ids = (await Promise.all(submitted)).flat()
    expect(ids).toHaveLength(10)
    await expectAllSucceed(system, token, ids)
    for (const url of [system.gatewayUrl, system.processorUrl, system.monitorUrl]) await untilFailing(url, [])
  }, 30_000)
})
