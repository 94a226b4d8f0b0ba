import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import * as v from 'valibot'
import { groups, type Topic, topics } from '../../common/messages/topics.ts'
import { sample } from '../../common/testing/sample.ts'
import { call, expectBody } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { kafkaClient, readTopics } from '../testing/foreign-client.ts'
import { Operation, submissionOf, timelineOf } from '../testing/operations.ts'
import { noRealParts, type Parts, realParts } from '../testing/parts.ts'
import { newUser } from '../testing/users.ts'

/** A message as another program's Kafka client sees it. */
interface Read {
  readonly topic: string
  readonly key: string | null
  readonly headers: Readonly<Record<string, string>>
  readonly value: string | null
}

const TRACE_ID = '4bf92f3577b34da6a3ce929d0e0e4736'
const RFC_3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/
const readable = [topics.requests, topics.results, topics.events]
const noKcat = Bun.which('kcat') ? '' : ' (skipped: kcat is not installed)'

describe.skipIf(noRealParts !== undefined)('on Kafka the messages are CloudEvents in binary mode', () => {
  let parts: Parts
  let system: System
  let user: string
  let operation: string

  beforeAll(async () => {
    parts = await realParts()
    system = await startInProcess(parts.environment)
    const { gatewayUrl, monitorUrl } = system
    const { id, token } = await newUser(gatewayUrl)
    user = id
    const answer = await call('POST', `${gatewayUrl}/operations`, {
      token,
      body: submissionOf(),
      headers: { Prefer: 'wait=20', traceparent: `00-${TRACE_ID}-00f067aa0ba902b7-01` },
    })
    operation = expectBody(answer, 200, Operation).id
    // Monitor has read both, so they are on the broker, and so are the events of the login before them.
    await timelineOf(monitorUrl, token, operation, 2)
  }, 60_000)
  afterAll(async () => {
    await system.close()
    await parts.dispose()
  }, 60_000)

  const brokerUrl = () => parts.environment.BROKER_URL ?? ''

  function expectCloudEvents(messages: readonly Read[]): void {
    const own = messages.filter(({ key }) => key === user)
    const [request] = own.filter(({ topic }) => topic === topics.requests)
    const [result] = own.filter(({ topic }) => topic === topics.results)
    const events = own.filter(({ topic }) => topic === topics.events)
    const attributes = {
      ce_specversion: '1.0',
      ce_id: expect.stringMatching(/^.+$/),
      ce_time: expect.stringMatching(RFC_3339),
      'content-type': 'application/json',
      traceparent: expect.stringMatching(/^00-[\da-f]{32}-[\da-f]{16}-\d\d$/),
    }
    expect(request?.headers).toEqual({
      ...attributes,
      ce_source: '/posta/gateway',
      ce_type: 'posta.operation.requested',
      ce_dataschema: 'urn:posta:schema:posta.operation.requested:2',
      ce_subject: operation,
    })
    expect(result?.headers).toEqual({
      ...attributes,
      ce_source: '/posta/processor',
      ce_type: 'posta.operation.succeeded',
      ce_dataschema: 'urn:posta:schema:posta.operation.succeeded:2',
      ce_subject: operation,
    })
    for (const message of [request, result]) {
      expect(message?.headers.traceparent).toContain(TRACE_ID)
      expect(JSON.parse(message?.value ?? '')).toMatchObject({ user, operation, operationType: sample.type })
    }
    expect(events.map(({ headers }) => headers)).toEqual(
      ['posta.user.registered', 'posta.user.logged-in'].map((type) => ({
        ...attributes,
        ce_source: '/posta',
        ce_type: type,
        ce_dataschema: `urn:posta:schema:${type}:2`,
      })),
    )
    for (const { value } of events) {
      expect(JSON.parse(value ?? '')).toMatchObject({ user })
      expect(value).not.toContain('@')
    }
    const ids = own.map(({ headers }) => headers.ce_id)
    expect(new Set(ids).size).toBe(ids.length)
  }

  test('for a plain consumer', async () => {
    const client = kafkaClient(brokerUrl())
    const groupId = `foreign-${Bun.randomUUIDv7()}`
    const messages = await readTopics(client, readable, groupId)
    const text = (bytes: Uint8Array | null) => bytes && Buffer.from(bytes).toString()
    expectCloudEvents(
      messages.map(({ topic, key, value, headers }) => ({
        topic,
        key: text(key),
        value: text(value),
        headers: Object.fromEntries(headers.map(([name, bytes]) => [name, Buffer.from(bytes).toString()])),
      })),
    )
    const admin = client.admin()
    await admin.connect()
    try {
      // The other program's group does not affect the services' groups.
      const { groups: found } = await admin.listGroups()
      expect(found.map(({ groupId: id }) => id)).toEqual(expect.arrayContaining([...Object.values(groups), groupId]))
      await admin.deleteGroups([groupId])
    } finally {
      await admin.disconnect()
    }
  }, 60_000)

  test.skipIf(noKcat !== '')(
    `for kcat${noKcat}`,
    async () => {
      expectCloudEvents((await Promise.all(readable.map(kcat))).flat())
    },
    60_000,
  )

  async function kcat(topic: Topic): Promise<Read[]> {
    const broker = brokerUrl().replace('kafka://', '')
    const child = Bun.spawn(['kcat', '-C', '-b', broker, '-t', topic, '-o', 'beginning', '-e', '-q', '-J'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const lines = (await new Response(child.stdout).text()).trim().split('\n')
    expect(await child.exited).toBe(0)
    return lines.map((line) => {
      const { key, payload, headers } = v.parse(KcatMessage, JSON.parse(line))
      const pairs = Array.from({ length: headers.length / 2 }, (_, at) => [headers[2 * at], headers[2 * at + 1]])
      return { topic, key, value: payload, headers: Object.fromEntries(pairs) }
    })
  }
})

/** `headers` holds names and values in turn. */
const KcatMessage = v.object({
  key: v.nullable(v.string()),
  payload: v.nullable(v.string()),
  headers: v.array(v.string()),
})
