import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import * as v from 'valibot'
import { sample } from '../../common/testing/sample.ts'
import { type Answer, askUntil, call, expectBody, graphql } from '../../tools/client.ts'
import type { System } from '../../tools/in-process.ts'
import { submissionOf } from '../testing/operations.ts'
import { describeOnParts, type MakeParts, type Parts, startReplicas } from '../testing/parts.ts'
import { logIn, newOperator, newUser, PASSWORD } from '../testing/users.ts'

const Operation = v.object({ id: v.string(), type: v.string(), status: v.string(), createdAt: v.string() })
const Succeeded = v.object({
  ...Operation.entries,
  status: v.literal('succeeded'),
  output: v.record(v.string(), v.unknown()),
  completedAt: v.string(),
})
const Stats = v.looseObject({ from: v.string(), until: v.string(), types: v.record(v.string(), v.number()) })
const Page = v.object({ items: v.array(v.record(v.string(), v.unknown())), next: v.optional(v.string()) })
const wait = { Prefer: 'wait=20' }
const { input, output } = sample.graphql
const field = sample.type

describeOnParts(describe, (makeParts, kind) => describeFlow(makeParts, kind === 'embedded' ? 1 : 2))

/** What clients see of an operation from its submission on. They ask the last replica; the first may do the work. */
function describeFlow(makeParts: MakeParts, replicas: number): void {
  describe(`the whole system, with ${replicas} of each service`, () => {
    let parts: Parts
    let systems: readonly System[]
    let urls: System

    beforeAll(async () => {
      parts = await makeParts()
      const started = await startReplicas(parts, replicas)
      systems = started
      urls = started.at(-1) ?? started[0]
    }, 60_000)
    afterAll(async () => {
      for (const system of systems) await system.close()
      await parts.dispose()
    }, 60_000)

    const submit = (token: string, body: unknown, headers: Record<string, string> = wait): Promise<Answer> =>
      call('POST', `${urls.gatewayUrl}/operations`, { token, body, headers })
    const typesOf = (answer: Answer) => expectBody(answer, 200, Page).items.map(({ type }) => type)
    /** How many events of each type the list has. */
    async function countByType(token: string, from: string, to: string): Promise<Record<string, number>> {
      const counts: Record<string, number> = {}
      let next: string | undefined
      do {
        const query = new URLSearchParams({ limit: '100', from, to, ...(next && { cursor: next }) })
        const page = expectBody(await call('GET', `${urls.monitorUrl}/events?${query}`, { token }), 200, Page)
        for (const { type } of page.items) counts[String(type)] = (counts[String(type)] ?? 0) + 1
        next = page.next
      } while (next)
      return counts
    }
    const eventsOf = (token: string, path: string, types: readonly string[]) =>
      askUntil(
        () => call('GET', `${urls.monitorUrl}${path}`, { token }),
        (answer) => answer.status === 200 && types.every((type) => typesOf(answer).includes(type)),
      )

    test('an operation is answered once with its output, and processor serves its result', async () => {
      const { token, id: user } = await newUser(urls.gatewayUrl)
      const answer = await submit(token, submissionOf())
      const { id, output } = expectBody(answer, 200, Succeeded)
      expect(answer.headers.get('preference-applied')).toBe('wait=20')
      expect(Object.keys(output)).toEqual(Object.keys(sample.output()))
      const result = await call('GET', `${urls.processorUrl}/results/${id}`, { token })
      expect(result.body).toMatchObject({ id, user, status: 'succeeded', output })
      expect(expectBody(await call('GET', `${urls.processorUrl}/results`, { token }), 200, Page).items).toHaveLength(1)
    }, 30_000)

    test('without Prefer the answer is 202 with a Location, which is never 404 and becomes terminal', async () => {
      const { token } = await newUser(urls.gatewayUrl)
      const answer = await submit(token, submissionOf(), {})
      const { id, status } = expectBody(answer, 202, Operation)
      expect(status).toBe('pending')
      expect(answer.headers.get('location')).toBe(`/operations/${id}`)
      const seen: number[] = []
      await askUntil(
        async () => {
          const got = await call('GET', `${urls.gatewayUrl}/operations/${id}`, { token })
          seen.push(got.status)
          return got
        },
        ({ body }) => v.is(Succeeded, body),
      )
      expect(new Set(seen)).toEqual(new Set([200]))
    }, 30_000)

    test('an idempotency key is one operation over both APIs, and 422 for another input', async () => {
      const { token } = await newUser(urls.gatewayUrl)
      const key = { 'Idempotency-Key': 'order-1' }
      const [first, second] = await Promise.all([
        submit(token, submissionOf(2), key),
        submit(token, submissionOf(2), key),
      ])
      const { id } = expectBody(first, 202, Operation)
      expect(expectBody(second, 202, Operation).id).toBe(id)
      const mutation = `mutation ($input: ${input}!) { ${field}(input: $input, idempotencyKey: "order-1") { id } }`
      const mutate = (n: number) => graphql(urls.gatewayUrl, mutation, { input: sample.input(n) }, token)
      expect((await mutate(2)).body).toEqual({ data: { [field]: { id } } })
      expect(await submit(token, submissionOf(3), key)).toMatchObject({
        status: 422,
        body: { code: 'idempotency-key-reused' },
      })
      expect((await mutate(3)).body).toMatchObject({
        errors: [{ extensions: { code: 'idempotency-key-reused' } }],
      })
    }, 30_000)

    test('SSE and the GraphQL subscription show the operation as it is, and again once it is terminal', async () => {
      const { token } = await newUser(urls.gatewayUrl)
      const { id } = expectBody(await submit(token, submissionOf(5), {}), 202, Operation)
      const headers = { authorization: `Bearer ${token}`, accept: 'text/event-stream' }
      const query = JSON.stringify({
        query: `subscription { operationChanged(id: "${id}") { id status ${field} { ${output} } } }`,
      })
      const [sse, subscription] = await Promise.all([
        fetch(`${urls.gatewayUrl}/operations/${id}/stream`, { headers }).then((response) => response.text()),
        fetch(`${urls.gatewayUrl}/graphql`, {
          method: 'POST',
          headers: { ...headers, 'content-type': 'application/json' },
          body: query,
        }).then((response) => response.text()),
      ])
      const statuses = (text: string) => [...text.matchAll(/"status":"(\w+)"/g)].map(([, status]) => status)
      for (const text of [sse, subscription]) expect(statuses(text).join()).toMatch(/^(pending,)?succeeded$/)
      expect(subscription).toContain('event: complete')
    }, 30_000)

    test('a list has the caller’s own operations, newest first, page by page', async () => {
      const { token } = await newUser(urls.gatewayUrl)
      const ids: string[] = []
      for (const n of [1, 2, 3]) ids.unshift(expectBody(await submit(token, submissionOf(n), {}), 202, Operation).id)
      const first = expectBody(await call('GET', `${urls.gatewayUrl}/operations?limit=2`, { token }), 200, Page)
      const rest = expectBody(
        await call('GET', `${urls.gatewayUrl}/operations?limit=2&cursor=${first.next}`, { token }),
        200,
        Page,
      )
      expect([...first.items, ...rest.items].map(({ id }) => id)).toEqual(ids)
      expect(rest.next).toBeUndefined()
      const query =
        'query ($after: String) { operations(first: 2, after: $after) { edges { node { id } } pageInfo { hasNextPage endCursor } } }'
      const connection = (answer: Answer) =>
        expectBody(
          answer,
          200,
          v.object({
            data: v.object({
              operations: v.object({
                edges: v.array(v.object({ node: v.object({ id: v.string() }) })),
                pageInfo: v.object({ hasNextPage: v.boolean(), endCursor: v.string() }),
              }),
            }),
          }),
        ).data.operations
      const one = connection(await graphql(urls.gatewayUrl, query, {}, token))
      const two = connection(await graphql(urls.gatewayUrl, query, { after: one.pageInfo.endCursor }, token))
      expect([...one.edges, ...two.edges].map(({ node }) => node.id)).toEqual(ids)
      expect([one.pageInfo.hasNextPage, two.pageInfo.hasNextPage]).toEqual([true, false])
    }, 30_000)

    test('no service shows a user what is another’s', async () => {
      const [owner, other] = [await newUser(urls.gatewayUrl), await newUser(urls.gatewayUrl)]
      const { id } = expectBody(await submit(owner.token, submissionOf()), 200, Succeeded)
      await eventsOf(owner.token, `/operations/${id}/timeline`, ['posta.operation.succeeded'])
      const paths = [
        `${urls.gatewayUrl}/operations/${id}`,
        `${urls.gatewayUrl}/operations/${id}/stream`,
        `${urls.processorUrl}/results/${id}`,
        `${urls.monitorUrl}/operations/${id}/timeline`,
      ]
      for (const path of paths)
        expect(await call('GET', path, { token: other.token })).toMatchObject({
          status: 404,
          body: { code: 'not-found' },
        })
      const query = `{ operation(id: "${id}") { id } }`
      expect((await graphql(urls.gatewayUrl, query, {}, other.token)).body).toMatchObject({
        errors: [{ extensions: { code: 'not-found' } }],
      })
      expect(typesOf(await call('GET', `${urls.monitorUrl}/events`, { token: other.token }))).not.toContain(
        'posta.operation.requested',
      )
      for (const path of ['/stats', '/audit/verify', '/dead-letters', '/events/stream'])
        expect(await call('GET', `${urls.monitorUrl}${path}`, { token: other.token })).toMatchObject({
          status: 403,
          body: { code: 'forbidden' },
        })
    }, 30_000)

    test('monitor holds the login and both messages of an operation', async () => {
      const { token } = await newUser(urls.gatewayUrl)
      const { id } = expectBody(await submit(token, submissionOf()), 200, Succeeded)
      const timeline = await eventsOf(token, `/operations/${id}/timeline`, [
        'posta.operation.requested',
        'posta.operation.succeeded',
      ])
      expect(typesOf(timeline)).toEqual(['posta.operation.requested', 'posta.operation.succeeded'])
      const events = await eventsOf(token, '/events', ['posta.user.registered', 'posta.user.logged-in'])
      expect(new Set(typesOf(events))).toEqual(
        new Set([
          'posta.user.registered',
          'posta.user.logged-in',
          'posta.operation.requested',
          'posta.operation.succeeded',
        ]),
      )
    }, 30_000)

    test('a refresh token rotates, its reuse ends the session, and a changed password ends the others', async () => {
      const { gatewayUrl } = urls
      const user = await newUser(gatewayUrl)
      const refresh = (refreshToken: string) => call('POST', `${gatewayUrl}/auth/refresh`, { body: { refreshToken } })
      const Next = v.object({ accessToken: v.string(), refreshToken: v.string() })
      const second = expectBody(await refresh(user.refreshToken), 200, Next)
      expect(expectBody(await refresh(user.refreshToken), 200, Next).refreshToken).toBe(second.refreshToken)
      const third = expectBody(await refresh(second.refreshToken), 200, Next)
      expect(await refresh(user.refreshToken)).toMatchObject({ status: 401, body: { code: 'invalid-credentials' } })
      expect((await refresh(third.refreshToken)).status).toBe(401)

      const session = await logIn(gatewayUrl, user.email)
      const newPassword = 'another long sentence of mine'
      const changed = await call('POST', `${gatewayUrl}/auth/password`, {
        token: session.accessToken,
        body: { currentPassword: PASSWORD, newPassword },
      })
      expect(changed.status).toBe(204)
      expect((await refresh(session.refreshToken)).status).toBe(401)
      expect((await logIn(gatewayUrl, user.email, newPassword)).tokenType).toBe('Bearer')
      expect((await call('POST', `${gatewayUrl}/auth/logout`, { body: { refreshToken: 'unknown' } })).status).toBe(204)
      await eventsOf(user.token, '/events', [
        'posta.session.refreshed',
        'posta.session.reuse-detected',
        'posta.user.password-changed',
      ])
    }, 30_000)

    test('an operator sees every user’s results and events, every chain is whole, and the stats count each event once', async () => {
      const operator = await newOperator(parts.environment, urls.gatewayUrl)
      const user = await newUser(urls.gatewayUrl)
      const { id } = expectBody(await submit(user.token, submissionOf()), 200, Succeeded)
      await eventsOf(operator, `/operations/${id}/timeline`, ['posta.operation.succeeded'])
      expect(await call('GET', `${urls.processorUrl}/results/${id}`, { token: operator })).toMatchObject({
        status: 200,
      })
      const verified = await call('GET', `${urls.monitorUrl}/audit/verify`, { token: operator })
      expect(verified).toMatchObject({ status: 200, body: { ok: true } })
      // Of every type there are as many as the list of events has.
      let counted: v.InferOutput<typeof Stats> | undefined
      let listed: Record<string, number> = {}
      await askUntil(
        async () => {
          const answer = await call('GET', `${urls.monitorUrl}/stats`, { token: operator })
          counted = expectBody(answer, 200, Stats)
          listed = await countByType(operator, counted.from, counted.until)
          return answer
        },
        () => Bun.deepEquals(counted?.types, listed),
      )
      const { 'posta.operation.succeeded': succeeded = 0, 'posta.operation.failed': failed = 0 } = listed
      expect(succeeded).toBeGreaterThan(0)
      expect(counted).toMatchObject({
        logins: listed['posta.user.logged-in'],
        failedOperations: failed,
        latency: { operations: succeeded + failed },
      })
      expect(await call('GET', `${urls.monitorUrl}/dead-letters`, { token: operator })).toMatchObject({
        status: 200,
        body: { items: [] },
      })
    }, 60_000)

    test('every service is live, ready, measured and described', async () => {
      for (const url of [urls.gatewayUrl, urls.processorUrl, urls.monitorUrl]) {
        expect(await call('GET', `${url}/health/live`)).toMatchObject({ status: 200, body: { status: 'ok' } })
        await askUntil(
          () => call('GET', `${url}/health/ready`),
          ({ body }) => v.is(v.object({ status: v.literal('ok') }), body),
        )
        expect((await call('GET', `${url}/metrics`)).body).toContain('http_server_request_duration_seconds')
        expect(await call('GET', `${url}/openapi.json`)).toMatchObject({ status: 200, body: { openapi: '3.1.0' } })
        for (const page of ['/docs', '/problems/not-found'])
          expect((await call('GET', `${url}${page}`)).status).toBe(200)
      }
      expect(await call('GET', `${urls.gatewayUrl}/.well-known/jwks.json`)).toMatchObject({
        status: 200,
        body: { keys: [{ kty: 'OKP', alg: 'EdDSA' }, { kty: 'OKP' }] },
      })
    }, 30_000)
  })
}
