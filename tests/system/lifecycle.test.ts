import { Database } from 'bun:sqlite'
import { expect, test } from 'bun:test'
import { join } from 'node:path'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { type Environment, portVariable } from '../../common/service/config.ts'
import { eventually } from '../../common/testing/eventually.ts' // example
import { startFakeApi } from '../../gateway/testing/fake-rates-api.ts'
import { call, expectBody } from '../../tools/client.ts'
import { expectAllSucceed, Operation, submissionOf, submitMany } from '../testing/operations.ts'
import { describeLong, embeddedParts, type Parts } from '../testing/parts.ts'
import { runProgram } from '../testing/run-program.ts'
import { type ServiceProcess, serviceProcesses } from '../testing/service-processes.ts'
import { tryCall } from '../testing/try-call.ts'
import { newUser } from '../testing/users.ts'

/** How long a drain may take. */
const DRAIN_MS = 8000

describeLong('configuration that cannot work', () => {
  const SECRET = 'hunter2'
  const common: Environment = {
    GATEWAY_PORT: '70000',
    BROKER_URL: `kafka://posta:${SECRET}@broker`,
    TOKEN_ISSUER: 'ftp://example.com',
    ALLOWED_ORIGINS: 'everyone',
    TRUSTED_PROXIES: '10.0.0.0/64',
    LOG_LEVEL: 'loud',
    NODE_ENV: 'staging',
  }
  const own: Record<ServiceName, Environment> = {
    gateway: {
      DATABASE_URL: `mysql://root:${SECRET}@db`,
      TOKEN_KEYS: `{"keys": "${SECRET}"}`,
      RATES_URL: 'tomorrow', // example
    },
    processor: {
      PROCESSOR_STORE_URL: `mongodb://root:${SECRET}@db`,
      DAILY_LIMIT_USD: '-5', // example
    },
    monitor: { MONITOR_STORE_URL: `mongodb://root:${SECRET}@db` },
  }

  const start = (name: ServiceName, environment: Environment) => runProgram([`${name}/main.ts`], { environment })

  test.concurrent.each(serviceNames)(
    'ends %s with code 1 and one message that lists every fault',
    async (name) => {
      const environment = { ...common, ...own[name] }
      const { code, out, error } = await start(name, environment)
      expect({ code, out }).toEqual({ code: 1, out: '' })
      const listed = [...error.matchAll(/^ {2}([A-Z_]+): .+/gm)].map(([, variable]) => variable)
      expect(listed.toSorted()).toEqual(Object.keys(environment).toSorted())
      expect(error).not.toContain(SECRET)
      expect(error).not.toMatch(/^\s+at /m)
    },
    30_000,
  )

  test.concurrent.each(serviceNames)('ends %s when its folder cannot be made', async (name) => {
    const { code, out, error } = await start(name, {
      [portVariable(name)]: '0',
      DATA_DIR: '/dev/null/data',
      LOG_LEVEL: 'silent',
    })
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(error).toContain('DATA_DIR')
    expect(error).not.toMatch(/^\s+at /m)
  })

  test.concurrent('ends a service when another program has its port', async () => {
    const other = Bun.serve({ hostname: '127.0.0.1', port: 0, fetch: () => new Response() })
    const { code, error } = await start('processor', { PROCESSOR_PORT: String(other.port) })
    await other.stop()
    expect(code).toBe(1)
    expect(error).toMatch(/^ {2}PROCESSOR_PORT: 127\.0\.0\.1:\d+ is taken/m)
    expect(error).not.toMatch(/^\s+at /m)
  }, 30_000)
})

describeLong('processes', () => {
  async function makeParts(cleanups: AsyncDisposableStack): Promise<Parts> {
    const parts = await embeddedParts()
    cleanups.defer(parts.dispose)
    return parts
  }

  async function startAll(cleanups: AsyncDisposableStack, services: readonly ServiceProcess[]): Promise<void> {
    for (const service of services) cleanups.defer(async () => void (await service.stop('SIGKILL')))
    await Promise.all(services.map((service) => service.start()))
  }

  test.concurrent('drain within 8 s on SIGTERM, and after a restart all accepted operations succeed', async () => {
    await using cleanups = new AsyncDisposableStack()
    const { environment } = await makeParts(cleanups)
    const { gateway, processor, monitor } = await serviceProcesses(environment)
    const all = [gateway, processor, monitor]
    await startAll(cleanups, all)
    const users = await Promise.all([1, 2, 3, 4].map(() => newUser(gateway.url)))
    const accepted = users.map(() => [] as string[])
    const enough = Promise.withResolvers<void>()

    /** Submits until gateway has closed. */
    async function submitAll(token: string, ids: string[]): Promise<void> {
      for (;;) {
        const answer = await tryCall('POST', `${gateway.url}/operations`, { token, body: submissionOf() })
        if (answer.status === 0 || answer.status === 503) return
        if (answer.status === 429) continue
        ids.push(expectBody(answer, 202, Operation).id)
        if (accepted.flat().length === 200) enough.resolve()
      }
    }
    const submitting = users.map(({ token }, index) => submitAll(token, accepted[index] ?? []))
    await enough.promise
    const startedMs = performance.now()
    expect(await Promise.all(all.map((service) => service.stop('SIGTERM')))).toEqual([0, 0, 0])
    expect(performance.now() - startedMs).toBeLessThan(DRAIN_MS)
    await Promise.all(submitting)

    await Promise.all(all.map((service) => service.start()))
    for (const [index, { token }] of users.entries())
      await expectAllSucceed({ gatewayUrl: gateway.url, monitorUrl: monitor.url }, token, accepted[index] ?? [], 30_000)
  }, 60_000)

  // example {
  test.concurrent('end at once on a second signal', async () => {
    await using cleanups = new AsyncDisposableStack()
    const api = startFakeApi()
    cleanups.defer(api.stop)
    api.behave('stalled')
    const { environment } = await makeParts(cleanups)
    const { gateway } = await serviceProcesses({ ...environment, RATES_URL: api.url })
    await startAll(cleanups, [gateway])
    const { token } = await newUser(gateway.url)
    const pending = tryCall('POST', `${gateway.url}/operations`, { token, body: submissionOf() })
    await eventually(() => api.asked.length > 0)
    const first = gateway.stop('SIGTERM')
    await eventually(async () => (await tryCall('GET', `${gateway.url}/health/live`)).status === 0)
    const startedMs = performance.now()
    // A signal that follows at once is taken for the first one, passed on twice.
    const again = setInterval(() => void gateway.stop('SIGTERM'), 100)
    expect(await first).toBe(1)
    clearInterval(again)
    // The drain alone would wait for the request for 4 s.
    expect(performance.now() - startedMs).toBeLessThan(3000)
    await pending
  }, 30_000)
  // }

  test.concurrent('two gateways look like one to clients, and one goes on without the other', async () => {
    await using cleanups = new AsyncDisposableStack()
    const { environment, dataDir } = await makeParts(cleanups)
    const first = await serviceProcesses(environment)
    const second = (await serviceProcesses({ ...environment, TOKEN_ISSUER: first.gateway.url })).gateway
    await startAll(cleanups, [first.gateway, first.processor, first.monitor])
    await startAll(cleanups, [second])
    const urls = [first.gateway.url, second.url]
    const { token } = await newUser(second.url)

    const ids: string[] = []
    for (let index = 0; index < 10; index++) {
      const answers = await Promise.all(
        urls.map((url) =>
          call('POST', `${url}/operations`, {
            token,
            body: submissionOf(),
            headers: { 'Idempotency-Key': `order-${index}`, Prefer: 'wait=20' },
          }),
        ),
      )
      const [one, other] = answers.map((answer) => expectBody(answer, 200, Operation))
      expect(other).toEqual(one)
      ids.push(one?.id ?? '')
    }
    expect(new Set(ids).size).toBe(10)
    await expectAllSucceed({ gatewayUrl: second.url, monitorUrl: first.monitor.url }, token, ids)
    // One of them sends at a time, so no request was sent twice.
    const broker = new Database(join(dataDir, 'broker.db'), { readonly: true })
    expect(broker.query('SELECT count(*) AS requests FROM "posta.requests"').get()).toEqual({ requests: 10 })
    broker.close()

    // The first one started first, so it sends and receives.
    await first.gateway.stop('SIGKILL')
    const more = await submitMany(second.url, token, 5)
    await expectAllSucceed({ gatewayUrl: second.url, monitorUrl: first.monitor.url }, token, more, 20_000)
  }, 60_000)
})
