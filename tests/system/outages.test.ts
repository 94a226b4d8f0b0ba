import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { call } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { startFerretdb } from '../../tools/infra/ferretdb.ts'
import { type KafkaServer, startKafka } from '../../tools/infra/kafka.ts'
import { missingTools } from '../../tools/infra/parts.ts'
import type { Server } from '../../tools/infra/server.ts'
import { deadLettersOf } from '../testing/dead-letters.ts'
import { expectAllSucceed, outcomeOf, submitMany, untilFailing } from '../testing/operations.ts'
import { embeddedParts, noRealParts, type Parts } from '../testing/parts.ts'
import { logIn, newOperator, newUser } from '../testing/users.ts'

/** A store's client may survive the first loss of its connections and not a later one. */
const KILLS = 3

const missing = missingTools()
// The tests start their own broker and stores, since they kill them.
const reason = noRealParts ?? (missing.length > 0 ? `it needs ${missing.join(' and ')}` : undefined)

describe.skipIf(reason !== undefined)(`the whole system${reason === undefined ? '' : ` (skipped: ${reason})`}`, () => {
  let broker: KafkaServer
  let processorStore: Server
  let monitorStore: Server
  let parts: Parts
  let system: System
  let operator: string

  beforeAll(async () => {
    ;[broker, processorStore, monitorStore, parts] = await Promise.all([
      startKafka(),
      startFerretdb(),
      startFerretdb(),
      embeddedParts(),
    ])
    system = await startInProcess({
      ...parts.environment,
      BROKER_URL: broker.url,
      PROCESSOR_STORE_URL: `${processorStore.url}processor`,
      MONITOR_STORE_URL: `${monitorStore.url}monitor`,
    })
    operator = await newOperator(parts.environment, system.gatewayUrl)
    const { token } = await newUser(system.gatewayUrl)
    await expectAllSucceed(system, token, await submitMany(system.gatewayUrl, token, 1), 30_000)
  }, 90_000)
  afterAll(async () => {
    await system?.close()
    await Promise.all([broker, processorStore, monitorStore].map((server) => server?.stop()))
    await parts?.dispose()
  }, 60_000)

  async function expectWhole(): Promise<void> {
    expect(await deadLettersOf(system.monitorUrl, operator, 0)).toEqual([])
    expect(await call('GET', `${system.monitorUrl}/audit/verify`, { token: operator })).toMatchObject({
      status: 200,
      body: { ok: true },
    })
  }

  test.each([
    ['is down', 'SIGKILL'],
    ['does not answer', 'SIGSTOP'],
  ] as const)(
    'accepts logins and operations while the broker %s; when it is back, all are sent and succeed',
    async (_what, signal) => {
      const { gatewayUrl, processorUrl, monitorUrl } = system
      const users = [await newUser(gatewayUrl), await newUser(gatewayUrl)]
      const before = await Promise.all(users.map(({ token }) => submitMany(gatewayUrl, token, 5)))
      await broker.kill(signal)
      const during = await Promise.all(
        users.map(async ({ email }) => submitMany(gatewayUrl, (await logIn(gatewayUrl, email)).accessToken, 10)),
      )
      await Promise.all([
        untilFailing(gatewayUrl, ['broker', 'relay', 'results'], 25_000),
        untilFailing(processorUrl, ['broker', 'requests'], 25_000),
        untilFailing(monitorUrl, ['broker', 'events'], 25_000),
      ])
      for (const [index, { token }] of users.entries())
        for (const id of during[index] ?? [])
          expect(await call('GET', `${gatewayUrl}/operations/${id}`, { token })).toMatchObject({
            body: { status: 'pending' },
          })
      if (signal === 'SIGSTOP') await broker.kill('SIGCONT')
      else await broker.restart()
      for (const [index, { token }] of users.entries())
        await expectAllSucceed(system, token, [...(before[index] ?? []), ...(during[index] ?? [])], 40_000)
      for (const url of [gatewayUrl, processorUrl, monitorUrl]) await untilFailing(url, [])
      await expectWhole()
      for (const { token } of users)
        expect(await call('GET', `${monitorUrl}/events?type=posta.user.logged-in`, { token })).toMatchObject({
          body: { items: [{}, {}] },
        })
    },
    90_000,
  )

  test('keeps operations pending while processor’s store is down, and all succeed after each outage', async () => {
    const { gatewayUrl, processorUrl } = system
    const { token } = await newUser(gatewayUrl)
    const ids = await submitMany(gatewayUrl, token, 5)
    await processorStore.kill()
    const during = await submitMany(gatewayUrl, token, 10)
    await untilFailing(processorUrl, ['store', 'runs', 'requests'])
    for (const id of during)
      expect(await call('GET', `${gatewayUrl}/operations/${id}`, { token })).toMatchObject({
        body: { status: 'pending' },
      })
    await expectUnavailable(`${processorUrl}/results`, token)
    await untilFailing(gatewayUrl, [])
    await processorStore.restart()
    await expectAllSucceed(system, token, [...ids, ...during], 30_000)
    for (let kills = 1; kills < KILLS; kills++) {
      const next = await submitMany(gatewayUrl, token, 5)
      await processorStore.restart()
      await expectAllSucceed(system, token, next, 30_000)
    }
    await untilFailing(processorUrl, [])
    await expectWhole()
  }, 90_000)

  test('completes operations while monitor’s store is down, and monitor misses no event', async () => {
    const { gatewayUrl, monitorUrl } = system
    const { token, email } = await newUser(gatewayUrl)
    await monitorStore.kill()
    await logIn(gatewayUrl, email)
    const ids = await submitMany(gatewayUrl, token, 10)
    for (const id of ids) expect((await outcomeOf(gatewayUrl, token, id)).status).toBe('succeeded')
    await untilFailing(monitorUrl, ['store', 'events'])
    await expectUnavailable(`${monitorUrl}/events`, token)
    await monitorStore.restart()
    await expectAllSucceed(system, token, ids, 30_000)
    for (let kills = 1; kills < KILLS; kills++) {
      const next = await submitMany(gatewayUrl, token, 5)
      await monitorStore.restart()
      await expectAllSucceed(system, token, next, 30_000)
    }
    await untilFailing(monitorUrl, [])
    await expectWhole()
  }, 90_000)
})

/** Expects what a service answers while its store is down. */
async function expectUnavailable(url: string, token: string): Promise<void> {
  const answer = await call('GET', url, { token })
  expect(answer).toMatchObject({ status: 503, body: { code: 'unavailable' } })
  expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
}
