import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import * as v from 'valibot'
import { encodeDeadLetter } from '../../common/messages/dead-letter.ts'
import { groups, topics } from '../../common/messages/topics.ts'
import type { Service } from '../../common/service/service.ts'
import { readMonitorConfig } from '../../monitor/config.ts'
import { openStore } from '../../monitor/store/store.ts'
import { askUntil, call, expectBody } from '../../tools/client.ts'
import type { System } from '../../tools/in-process.ts'
import { breakSample } from '../testing/break-sample.ts'
import { type DeadLetter, deadLettersOf, expectRedriven, redrive } from '../testing/dead-letters.ts'
import { publishForeign } from '../testing/foreign-client.ts'
import { Operation, outcomeOf, submissionOf, timelineOf } from '../testing/operations.ts'
import { describeLong, describeOnParts, type MakeParts, type Parts, startReplicas } from '../testing/parts.ts'
import { newOperator, newUser, type User } from '../testing/users.ts'

describeOnParts(describeLong, describeDeadLetters)

/** What operators can do about operations that failed by dead letter, and what their users see of it. */
function describeDeadLetters(makeParts: MakeParts): void {
  describe('dead letters, with two of each service:', () => {
    let parts: Parts
    let systems: readonly System[]
    let repaired: Service[] = []
    let operator: string
    let operatorId: string
    let [ana, bob, carl]: User[] = []
    let anas: Operation[]
    /** What Ana's streams of her first operation showed, from its submission on. */
    let watched: Promise<string>[]

    const urlsOf = (replica: number) => {
      const system = systems[replica]
      if (!system) throw new Error('There are two systems.')
      return system
    }
    const userOf = (user: User | undefined) => {
      if (!user) throw new Error('There are three users.')
      return user
    }
    const submit = (user: User | undefined, n: number, headers: Record<string, string> = {}) =>
      call('POST', `${urlsOf(0).gatewayUrl}/operations`, {
        token: userOf(user).token,
        body: submissionOf(n),
        headers: { 'Idempotency-Key': `order-of-${n}`, ...headers },
      })
    const accept = async (user: User | undefined, n: number) => expectBody(await submit(user, n), 202, Operation)
    const lettersOf = async (user: User | undefined): Promise<DeadLetter[]> =>
      (await deadLettersOf(urlsOf(0).monitorUrl, operator, 5)).filter((letter) => letter.user === userOf(user).id)
    const many = (replica: number, what: 'redrive' | 'discard', body: object) =>
      call('POST', `${urlsOf(replica).monitorUrl}/dead-letters/${what}`, { token: operator, body })

    // While every operation fails, Ana submits three and the others one each.
    beforeAll(async () => {
      parts = await makeParts()
      systems = await startReplicas(parts, 2)
      const { gatewayUrl } = urlsOf(0)
      operator = await newOperator(parts.environment, gatewayUrl)
      const me = await call('GET', `${gatewayUrl}/auth/me`, { token: operator })
      operatorId = expectBody(me, 200, v.object({ id: v.string() })).id
      ;[ana, bob, carl] = [await newUser(gatewayUrl), await newUser(gatewayUrl), await newUser(gatewayUrl)]
      const repairs = await Promise.all(systems.map(breakSample))
      anas = [await accept(ana, 1)]
      watched = systems.flatMap(({ gatewayUrl }) => watches(gatewayUrl, userOf(ana).token, anas[0]?.id ?? ''))
      anas.push(await accept(ana, 2), await accept(ana, 3))
      const others = [await accept(bob, 1), await accept(carl, 6000)]
      for (const { id } of anas) await expectDeadLettered(ana, id)
      await expectDeadLettered(bob, others[0]?.id)
      await expectDeadLettered(carl, others[1]?.id)
      repaired = await Promise.all(repairs.map((repair) => repair()))
    }, 90_000)
    afterAll(async () => {
      for (const system of systems) await system.close()
      for (const service of repaired) await service.close()
      await parts.dispose()
    }, 60_000)

    async function expectDeadLettered(user: User | undefined, id = ''): Promise<void> {
      const operation = await outcomeOf(urlsOf(1).gatewayUrl, userOf(user).token, id, 30_000)
      expect(operation).toMatchObject({ status: 'failed', error: { code: 'dead-lettered' } })
    }

    test('every stream of an operation shows its failure and ends', async () => {
      expect(watched).toHaveLength(4)
      for (const statuses of watched) expect(await statuses).toMatch(/^(pending,)?failed$/)
      const waited = await submit(ana, 1, { Prefer: 'wait=10' })
      expect(waited).toMatchObject({ status: 200, body: { id: anas[0]?.id, error: { code: 'dead-lettered' } } })
    }, 30_000)

    test('a dry run changes nothing; two redrives at once have each effect once; new streams show it', async () => {
      const filter = { user: userOf(ana).id, topic: topics.requests }
      const before = await lettersOf(ana)
      expect(await many(0, 'redrive', { filter })).toMatchObject({
        status: 200,
        body: { dryRun: true, count: 3, ids: before.map(({ id }) => id).toReversed() },
      })
      expect(await lettersOf(ana)).toEqual(before)

      const asked = await Promise.all([0, 1].map((replica) => many(replica, 'redrive', { filter, dryRun: false })))
      const counts = asked.map((answer) =>
        expectBody(answer, 200, v.object({ redriven: v.number(), refused: v.number() })),
      )
      expect(counts.reduce((sum, { redriven }) => sum + redriven, 0)).toBe(3)
      expect(counts.map(({ refused }) => refused)).toEqual([0, 0])

      // A stream ends once its operation is terminal. A new one shows the change, over each API and at each gateway.
      const { token } = userOf(ana)
      for (const { id } of anas)
        for (const { gatewayUrl } of systems)
          for (const way of [watchStream, watchSubscription]) {
            const seen: string[] = []
            const deadlineMs = performance.now() + 30_000
            while (seen.at(-1) !== 'succeeded' && performance.now() < deadlineMs)
              seen.push(await way(gatewayUrl, token, id))
            expect(seen.join()).toMatch(/^(failed,)*succeeded$/)
          }
      for (const [index, { id }] of anas.entries()) {
        const read = await call('GET', `${urlsOf(1).gatewayUrl}/operations/${id}`, { token })
        expect(read).toMatchObject({ body: { id, status: 'succeeded' } })
        expect(read.body).not.toHaveProperty('error')
        const waited = await submit(ana, index + 1, { Prefer: 'wait=10' })
        expect(waited).toMatchObject({ status: 200, body: { id, status: 'succeeded' } })
        expect(await timelineOf(urlsOf(1).monitorUrl, token, id, 5)).toEqual([
          'posta.operation.requested',
          'posta.message.dead-lettered',
          'posta.operation.failed',
          'posta.dead-letter.redriven',
          'posta.operation.succeeded',
        ])
      }
      for (const letter of await lettersOf(ana))
        expect(letter).toMatchObject({ status: 'redriven', redrive: { by: operatorId } })
    }, 90_000)

    test('a discard is an event with who and why; its operation stays failed and cannot be redriven', async () => {
      const [letter] = await lettersOf(bob)
      const filter = { operation: letter?.operation }
      expect(await many(1, 'discard', { filter, reason: 'Bob asked us to.', dryRun: false })).toMatchObject({
        status: 200,
        body: { discarded: 1, already: 0, refused: 0 },
      })
      expect(await redrive(urlsOf(0).monitorUrl, operator, letter?.id ?? '')).toMatchObject({
        status: 409,
        body: { code: 'conflict' },
      })
      const token = userOf(bob).token
      const events = await askUntil(
        () => call('GET', `${urlsOf(0).monitorUrl}/events?type=posta.dead-letter.discarded`, { token }),
        (answer) => expectBody(answer, 200, Items).items.length > 0,
      )
      expect(events.body).toMatchObject({
        items: [{ data: { deadLetter: letter?.id, by: operatorId, reason: 'Bob asked us to.' } }],
      })
      await expectDeadLettered(bob, letter?.operation)
    }, 30_000)

    test('monitor carries out a redrive recorded before a crash; one after the success changes nothing', async () => {
      const { gatewayUrl, monitorUrl, environment } = urlsOf(0)
      const { id: user, token } = userOf(carl)
      const [letter] = await lettersOf(carl)
      const { id = '', operation = '' } = letter ?? {}
      const store = openStore(readMonitorConfig(environment).storeUrl)
      const at = new Date().toISOString()
      const decision = { to: 'redriven', event: `${id}.redriven`, by: operatorId, at } as const
      await store.deadLetters.decide([{ id, decision }])
      await store.close()
      const read = () => call('GET', `${gatewayUrl}/operations/${operation}`, { token })
      const { body: succeeded } = await askUntil(
        read,
        (answer) => expectBody(answer, 200, Operation).status === 'succeeded',
        30_000,
      )
      await askUntil(
        () => call('GET', `${monitorUrl}/dead-letters/${encodeURIComponent(id)}`, { token: operator }),
        (answer) => expectRedriven(answer).status === 'redriven',
      )

      const whole = await call('GET', `${monitorUrl}/dead-letters/${encodeURIComponent(id)}`, { token: operator })
      const { original } = expectBody(whole, 200, Whole)
      const bytes = ({ base64 }: { readonly base64: string }) => Buffer.from(base64, 'base64')
      const another = encodeDeadLetter(
        {
          topic: topics.requests,
          partition: 0,
          offset: 1_000_000,
          timestampMs: Date.now(),
          key: bytes(original.key),
          value: bytes(original.value),
          headers: original.headers.map((header) => [header.name, bytes(header)]),
        },
        groups.processor,
        'It was dead-lettered once more.',
      )
      await publishForeign(parts.environment, [another])
      await deadLettersOf(monitorUrl, operator, 6)
      expect(expectRedriven(await redrive(monitorUrl, operator, another.key)).operation).toBe(operation)
      // The second redrive was answered with the stored result.
      expect((await timelineOf(monitorUrl, token, operation, 7)).slice(-2)).toEqual([
        'posta.dead-letter.redriven',
        'posta.operation.succeeded',
      ])
      expect((await read()).body).toEqual(succeeded)
      // example {
      // The 6000 USD counted once: 4000 of the day's 10000 USD are left.
      const outcomes: string[] = []
      for (const n of [4000, 1]) {
        const { id } = await accept(carl, n)
        const { status, error } = await outcomeOf(gatewayUrl, token, id)
        outcomes.push(error?.code ?? status)
      }
      expect(outcomes).toEqual(['succeeded', 'limit-exceeded'])
      // }
      expect(await call('GET', `${monitorUrl}/audit/verify`, { token: operator })).toMatchObject({ body: { ok: true } })
      expect((await lettersOf(carl)).every((each) => each.user === user)).toBe(true)
    }, 60_000)
  })
}

const Items = v.object({ items: v.array(v.unknown()) })
const Bytes = v.object({ base64: v.string() })
const Whole = v.object({
  original: v.object({
    key: Bytes,
    value: Bytes,
    headers: v.array(v.object({ name: v.string(), ...Bytes.entries })),
  }),
})

const watches = (gatewayUrl: string, token: string, id: string) =>
  [watchStream, watchSubscription].map((way) => way(gatewayUrl, token, id))

/** Resolves to the statuses that the stream shows until it ends. */
async function watchStream(gatewayUrl: string, token: string, id: string): Promise<string> {
  const response = await fetch(`${gatewayUrl}/operations/${id}/stream`, { headers: headersOf(token) })
  return statusesIn(await response.text())
}

/** Resolves to the statuses that the GraphQL subscription shows until it is complete. */
async function watchSubscription(gatewayUrl: string, token: string, id: string): Promise<string> {
  const response = await fetch(`${gatewayUrl}/graphql`, {
    method: 'POST',
    headers: { ...headersOf(token), 'content-type': 'application/json' },
    body: JSON.stringify({ query: `subscription { operationChanged(id: "${id}") { status error { code } } }` }),
  })
  return statusesIn(await response.text())
}

const headersOf = (token: string) => ({ authorization: `Bearer ${token}`, accept: 'text/event-stream' })

const statusesIn = (text: string) => [...text.matchAll(/"status":"(\w+)"/g)].map(([, status]) => status).join()
