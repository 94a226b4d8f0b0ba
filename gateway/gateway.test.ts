import { afterEach, expect, test } from 'bun:test'
import { createClient } from '@libsql/client'
import { openBroker } from '@posta/common/broker/open.ts'
import { encode } from '@posta/common/messages/envelope.ts'
import { systemDeps } from '@posta/common/service/deps.ts'
import { listen } from '@posta/common/service/listener.ts'
import { createLog } from '@posta/common/service/log.ts'
import { eventually } from '@posta/common/testing/eventually.ts'
import { sample } from '@posta/common/testing/sample.ts'
import { temporaryFolder } from '@posta/common/testing/temporary-folder.ts'
import { readGatewayConfig } from './config.ts'
import { createGateway } from './gateway.ts'
import { recordStatements } from './testing/statements.ts'

const cleanups: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

/** A gateway with a folder of its own, on embedded parts. */
async function start() {
  const folder = temporaryFolder()
  cleanups.push(folder.remove)
  const listener = listen('127.0.0.1', 0)
  const config = readGatewayConfig({
    DATA_DIR: folder.path,
    GATEWAY_PORT: String(listener.port),
    RATES_URL: 'bundled:', // example
    LOG_LEVEL: 'silent',
  })
  let passedMs = 0
  const now = () => Date.now() + passedMs
  const monotonicMs = () => performance.now() + passedMs
  const service = await createGateway(config, { ...systemDeps, now, monotonicMs }, listener)
  await service.start()
  cleanups.push(() => service.close())
  return {
    config,
    async ask(method: 'GET' | 'POST', path: string, body?: object, headers?: Record<string, string>) {
      const response = await fetch(config.urls.gateway + path, {
        method,
        headers: { 'Content-Type': 'application/json', ...headers },
        ...(body && { body: JSON.stringify(body) }),
      })
      return { status: response.status, headers: response.headers, text: await response.text() }
    },
    pass(ms: number) {
      passedMs += ms
    },
  }
}

test('the page at / runs no script, and each of its links leads somewhere', async () => {
  const { config, ask } = await start()
  const { status, headers, text } = await ask('GET', '/')
  expect(status).toBe(200)
  expect(headers.get('Content-Security-Policy')).toBe(
    "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
  )
  const links = [...text.matchAll(/<a href="([^"]+)"/g)].map(([, href = '']) => href)
  const own = links.filter((href) => href.startsWith('/'))
  expect(own).toEqual(expect.arrayContaining(['/docs', '/graphql', '/asyncapi.json', '/problems', '/health/ready']))
  for (const path of own)
    expect([path, (await ask('GET', path, undefined, { Accept: 'text/html' })).status]).toEqual([path, 200])
  expect(links.filter((href) => !own.includes(href))).toEqual([config.urls.processor, config.urls.monitor])
})

test('no statement of a gateway reads or sorts a whole table that grows, and each index serves a statement', async () => {
  const statements = recordStatements()
  const { config, ask, pass } = await start()
  const credentials = { email: 'ana@example.com', password: 'four words nobody says' }
  const user = JSON.parse((await ask('POST', '/auth/register', credentials)).text)
  const tokens = JSON.parse((await ask('POST', '/auth/login', credentials)).text)
  const caller = { Authorization: `Bearer ${tokens.accessToken}` }
  await ask('GET', '/auth/me', undefined, caller)

  const { type } = sample
  const submission = { type, input: sample.input() }
  const accepted = await ask('POST', '/operations', submission, { ...caller, 'Idempotency-Key': 'key' })
  const { id, createdAt } = JSON.parse(accepted.text)
  await ask('GET', '/operations?limit=1', undefined, caller)

  const database = createClient({ url: config.database.url })
  cleanups.push(() => database.close())
  pass(3 * 60_000)
  await eventually(async () => (await database.execute('SELECT 1 FROM operations WHERE resends = 1')).rows.length > 0)

  const { broker: settings } = config
  const broker = openBroker({
    ...settings,
    clientId: 'processor',
    log: createLog('processor', 'silent'),
    deps: systemDeps,
  })
  cleanups.push(() => broker.close())
  const stream = ask('GET', `/operations/${id}/stream`, undefined, caller)
  expect((await ask('POST', `/operations/${id}/cancel`, undefined, caller)).status).toBe(202)
  const data = {
    user: user.id,
    operation: id,
    operationType: type,
    output: sample.output(),
    createdAt,
    completedAt: createdAt,
  }
  const at = { user: user.id, operation: id, operationType: type, at: createdAt }
  const waiting = { ...at, n: 0, step: 'approve', status: 'waiting' as const, forSignal: true }
  await broker.publish([
    encode({ id: `${id}.progress.0`, type: 'posta.operation.progressed', time: createdAt, subject: id, data: waiting }),
    encode({ id: `${id}.succeeded`, type: 'posta.operation.succeeded', time: createdAt, subject: id, data }),
  ])
  expect((await stream).text).toContain('"succeeded"')

  const next = JSON.parse((await ask('POST', '/auth/refresh', { refreshToken: tokens.refreshToken })).text)
  const change = { currentPassword: credentials.password, newPassword: 'five words that nobody says' }
  const changed = await ask('POST', '/auth/password', { ...change, refreshToken: next.refreshToken }, caller)
  expect(changed.status).toBe(204)
  await ask('GET', '/auth/sessions', undefined, caller)
  await ask('GET', '/.well-known/revocations')
  await ask('POST', '/auth/logout', { refreshToken: next.refreshToken })

  expect(await statements.stop(config.database.url)).toEqual({
    unindexed: [],
    indexes: [
      'operations_by_idempotency_key',
      'operations_by_user',
      'operations_pending_by_resend',
      'operations_pending_by_user',
      'operations_waiting_by_user',
      'refresh_tokens_by_expiry',
      'refresh_tokens_by_session',
      'refresh_tokens_by_user',
      'refresh_tokens_unused',
      'revocations_by_time',
      'users_email_unique',
    ],
  })
})
