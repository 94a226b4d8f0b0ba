// `bun run demo`: the whole system in one process, on embedded parts and a temporary DATA_DIR, doing its job once.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'
import { REPOSITORY_ROOT } from '../common/service/config.ts'
import { onStopSignal } from '../common/service/stop-signal.ts'
import { addresses } from './addresses.ts'
import { call, eventually, expectBody, graphql, Tokens } from './client.ts'
import { type System, startInProcess } from './in-process.ts'

const User = v.object({ id: v.string(), email: v.string() })
const Succeeded = v.object({
  id: v.string(),
  status: v.literal('succeeded'),
  output: v.record(v.string(), v.unknown()),
})
const Refused = v.object({
  status: v.literal('failed'),
  error: v.object({ code: v.literal('limit-exceeded'), message: v.string() }),
})
const LoggedIn = v.object({ data: v.object({ login: Tokens }) })
const Stored = v.object({ data: v.object({ storeRates: v.object({ id: v.string(), status: v.string() }) }) })
const Answered = v.object({
  data: v.object({
    operation: v.object({
      status: v.literal('succeeded'),
      storeRates: v.object({ base: v.string(), date: v.string(), currencies: v.number(), source: v.string() }),
    }),
  }),
})
const Timeline = v.object({
  items: v.array(
    v.object({
      type: v.string(),
      topic: v.string(),
      partition: v.number(),
      offset: v.number(),
      sincePreviousMs: v.optional(v.number()),
    }),
  ),
})

/** What people see: one line each. */
function say(text: string, value?: unknown): void {
  console.log(value === undefined ? text : `${text}\n    ${typeof value === 'string' ? value : JSON.stringify(value)}`)
}

async function addOperator(dataDir: string, email: string, password: string): Promise<void> {
  const child = Bun.spawn([process.execPath, 'gateway/tools/users.ts', 'add', email, '--role', 'operator'], {
    cwd: REPOSITORY_ROOT,
    env: { ...process.env, DATA_DIR: dataDir, DATABASE_URL: '' },
    stdin: new Blob([`${password}\n`]),
    stdout: 'ignore',
    stderr: 'inherit',
  })
  if ((await child.exited) !== 0) throw new Error('The operator could not be added; see above.')
}

/** Does what a client does, and throws where an answer is not as it should be. */
async function demonstrate({ gatewayUrl, monitorUrl }: System): Promise<void> {
  const credentials = { email: 'ana@example.com', password: randomPassword() }
  const convert = (amount: string) => ({ type: 'convert', input: { from: 'USD', to: 'ARS', amount } })
  const wait = { Prefer: 'wait=10' }

  const registered = await call('POST', `${gatewayUrl}/auth/register`, { body: credentials })
  say('A user registers: POST /auth/register', expectBody(registered, 201, User))

  const rest = await call('POST', `${gatewayUrl}/auth/login`, { body: credentials })
  const { accessToken: token, expiresIn } = expectBody(rest, 200, Tokens)
  say('and logs in over REST: POST /auth/login', `an access token for ${expiresIn} s, and a refresh token`)

  const mutation =
    'mutation ($input: LoginInput!) { login(input: $input) { accessToken tokenType expiresIn refreshToken } }'
  const login = await graphql(gatewayUrl, mutation, { input: credentials })
  const graphqlToken = expectBody(login, 200, LoggedIn).data.login.accessToken
  say('and over GraphQL: mutation login', 'the same, of another session')

  const converted = await call('POST', `${gatewayUrl}/operations`, { token, body: convert('100.50'), headers: wait })
  const operation = expectBody(converted, 200, Succeeded)
  say('100.50 USD become ARS: POST /operations, Prefer: wait=10', operation.output)

  const store = 'mutation { storeRates(input: { base: "USD" }) { id status } }'
  const { id } = expectBody(await graphql(gatewayUrl, store, {}, graphqlToken), 200, Stored).data.storeRates
  const query = 'query ($id: ID!) { operation(id: $id) { status storeRates { base date currencies source } } }'
  const answered = await eventually(
    () => graphql(gatewayUrl, query, { id }, graphqlToken),
    ({ body }) => v.is(Answered, body),
  )
  say("The day's rates are stored: mutation storeRates", expectBody(answered, 200, Answered).data.operation.storeRates)

  const refused = await call('POST', `${gatewayUrl}/operations`, { token, body: convert('9999.99'), headers: wait })
  say('Beyond the daily limit the answer is a refusal', expectBody(refused, 200, Refused).error)

  const timeline = await eventually(
    () => call('GET', `${monitorUrl}/operations/${operation.id}/timeline`, { token }),
    ({ body }) => v.is(v.object({ ...Timeline.entries, items: v.pipe(Timeline.entries.items, v.length(2)) }), body),
  )
  say('What happened to the first conversion: GET /operations/{id}/timeline at monitor')
  for (const { type, topic, partition, offset, sincePreviousMs = 0 } of expectBody(timeline, 200, Timeline).items)
    say(`    +${sincePreviousMs} ms  ${type}  (${topic}, partition ${partition}, offset ${offset})`)
}

function randomPassword(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(18))).toString('base64url')
}

async function demo(once: boolean): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), 'posta-demo-'))
  const operator = { email: 'operator@example.com', password: randomPassword() }
  const stopped = Promise.withResolvers<void>()
  let system: System | undefined
  try {
    const ports = { GATEWAY_PORT: '3000', PROCESSOR_PORT: '3001', MONITOR_PORT: '3002' }
    system = await startInProcess({ RATES_URL: process.env.RATES_URL, LOG_LEVEL: 'error', DATA_DIR: dataDir, ...ports })
    const { gatewayUrl, processorUrl, monitorUrl, environment } = system
    for (const [variable, port] of Object.entries(ports))
      if (environment[variable] !== port) say(`Port ${port} is taken: ${variable} is ${environment[variable]} instead.`)
    await addOperator(dataDir, operator.email, operator.password)
    await demonstrate(system)
    say('\nEverything is as it should be.')
    if (once) return
    onStopSignal(stopped.resolve)
    say(`
${addresses({ gateway: gatewayUrl, processor: processorUrl, monitor: monitorUrl })}
  operator    ${operator.email}    ${operator.password}

The system stays up, with its data in a temporary folder. Ctrl-C ends it.`)
    await stopped.promise
  } finally {
    await system?.close()
    rmSync(dataDir, { recursive: true, force: true })
  }
}

try {
  await demo(process.argv.includes('--once'))
  process.exit(0)
} catch (error) {
  console.error('\nSomething is not as it should be:', error)
  process.exit(1)
}
