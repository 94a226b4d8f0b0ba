// `bun run demo`: the whole system in one process, on embedded parts and a temporary DATA_DIR, doing its job once.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as v from 'valibot'
import { NAME, serviceNames } from '../common/name.ts'
import { portVariable, REPOSITORY_ROOT } from '../common/service/config.ts'
import { onStopSignal } from '../common/service/stop-signal.ts'
import { addresses } from './addresses.ts'
import { askUntil, call, expectBody, graphql, Tokens } from './client.ts'
import { type System, startInProcess } from './in-process.ts'
import { startProvider } from './provider.ts'

const User = v.object({ id: v.string(), email: v.string() })
const Output = v.record(v.string(), v.unknown())
const Succeeded = v.object({ id: v.string(), status: v.literal('succeeded'), output: Output })
const Limited = v.object({ code: v.literal('limit-exceeded'), message: v.string() })
const Refused = v.object({ status: v.literal('failed'), error: Limited })
const Step = v.object({ step: v.string(), status: v.picklist(['done', 'undone', 'waiting']) })
const Progressed = v.object({ id: v.string(), status: v.string(), progress: v.optional(v.array(Step), []) })
const Cancelled = v.object({
  status: v.literal('failed'),
  error: v.object({ code: v.literal('cancelled'), message: v.string() }),
})
const LoggedIn = dataOf({ login: Tokens })
const Submitted = dataOf({ storeRates: v.object({ id: v.string() }) })
const Stored = dataOf({ operation: v.object({ status: v.literal('succeeded'), storeRates: Output }) })
const Place = v.object({ type: v.string(), topic: v.string(), partition: v.number(), offset: v.number() })
const Event = v.object({ ...Place.entries, sincePreviousMs: v.optional(v.number(), 0) })
const Timeline = v.object({ items: v.pipe(v.array(Event), v.length(2)) })

/** The answer of a GraphQL request that succeeded. */
function dataOf<Fields extends v.ObjectEntries>(fields: Fields) {
  return v.object({ data: v.object(fields) })
}

/** A line for the reader, and below it what was answered. */
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

interface Credentials {
  readonly email: string
  readonly password: string
}

/** Does what a client does. @throws Error when an answer is not as it should be. */
async function demonstrate({ gatewayUrl, monitorUrl }: System, operator: Credentials): Promise<void> {
  const credentials = { email: 'ana@example.com', password: randomPassword() }
  const registered = await call('POST', `${gatewayUrl}/auth/register`, { body: credentials })
  say('A user registers: POST /auth/register', expectBody(registered, 201, User))

  const rest = await call('POST', `${gatewayUrl}/auth/login`, { body: credentials })
  const { accessToken: token, expiresIn } = expectBody(rest, 200, Tokens)
  say('and logs in over REST: POST /auth/login', `an access token for ${expiresIn} s, and a refresh token`)

  const logIn =
    'mutation ($input: LoginInput!) { login(input: $input) { accessToken tokenType expiresIn refreshToken } }'
  const { login } = expectBody(await graphql(gatewayUrl, logIn, { input: credentials }), 200, LoggedIn).data
  say('and over GraphQL: mutation login', 'the same, of another session')

  const convert = (amount: string) =>
    call('POST', `${gatewayUrl}/operations`, {
      token,
      body: { type: 'convert', input: { from: 'USD', to: 'ARS', amount } },
      headers: { Prefer: 'wait=10' },
    })
  const converted = expectBody(await convert('100.50'), 200, Succeeded)
  say('100.50 USD become ARS: POST /operations, Prefer: wait=10', converted.output)

  const store = 'mutation { storeRates(input: { base: "USD" }) { id } }'
  const { storeRates } = expectBody(await graphql(gatewayUrl, store, {}, login.accessToken), 200, Submitted).data
  const query = 'query ($id: ID!) { operation(id: $id) { status storeRates { base date currencies source } } }'
  const stored = await askUntil(
    () => graphql(gatewayUrl, query, { id: storeRates.id }, login.accessToken),
    ({ body }) => v.is(Stored, body),
  )
  say("The day's rates are stored: mutation storeRates", expectBody(stored, 200, Stored).data.operation.storeRates)

  await demonstratePayouts(gatewayUrl, token, operator)

  say('Beyond the daily limit the answer is a refusal', expectBody(await convert('9999.99'), 200, Refused).error)

  const timeline = await askUntil(
    () => call('GET', `${monitorUrl}/operations/${converted.id}/timeline`, { token }),
    ({ body }) => v.is(Timeline, body),
  )
  say('What happened to the first conversion: GET /operations/{id}/timeline at monitor')
  for (const { type, topic, partition, offset, sincePreviousMs } of expectBody(timeline, 200, Timeline).items)
    say(`    +${sincePreviousMs} ms  ${type}  (${topic}, partition ${partition}, offset ${offset})`)
}

/** Operations in steps: one is paid, one waits for an operator who approves it, one is cancelled while it waits. */
async function demonstratePayouts(gatewayUrl: string, token: string, operator: Credentials): Promise<void> {
  const operations = `${gatewayUrl}/operations`
  const submit = (amount: string) =>
    call('POST', operations, {
      token,
      body: { type: 'payout', input: { from: 'USD', to: 'EUR', amount, payee: 'ana-savings' } },
    })
  const until = (id: string, done: (operation: v.InferOutput<typeof Progressed>) => boolean) =>
    askUntil(
      () => call('GET', `${operations}/${id}`, { token }),
      (answer) => done(expectBody(answer, 200, Progressed)),
    )
  const isTerminal = ({ status }: { status: string }) => status !== 'pending'
  const waits = ({ progress }: v.InferOutput<typeof Progressed>) => progress.at(-1)?.status === 'waiting'
  const shown = (steps: readonly v.InferOutput<typeof Step>[]) =>
    steps.map(({ step, status }) => `${step} ${status}`).join(', ')

  const small = expectBody(await submit('50'), 202, Progressed)
  const paid = await until(small.id, isTerminal)
  say('A payout is made in steps at a provider', expectBody(paid, 200, Succeeded).output)
  say(`    ${shown(expectBody(paid, 200, Progressed).progress)}`)

  const login = await call('POST', `${gatewayUrl}/auth/login`, { body: operator })
  const { accessToken } = expectBody(login, 200, Tokens)
  const large = expectBody(await submit('1500'), 202, Progressed)
  await until(large.id, waits)
  const approval = { token: accessToken, body: { approved: true } }
  expectBody(await call('POST', `${operations}/${large.id}/signals/approve`, approval), 202, Progressed)
  const approved = await until(large.id, isTerminal)
  expectBody(approved, 200, Succeeded)
  say('A large one waits until an operator approves it: POST /operations/{id}/signals/approve')
  say(`    ${shown(expectBody(approved, 200, Progressed).progress)}`)

  const unwanted = expectBody(await submit('1200'), 202, Progressed)
  await until(unwanted.id, waits)
  expectBody(await call('POST', `${operations}/${unwanted.id}/cancel`, { token }), 202, Progressed)
  const cancelled = await until(unwanted.id, isTerminal)
  say('Another is cancelled while it waits: POST /operations/{id}/cancel', expectBody(cancelled, 200, Cancelled).error)
  say(`    ${shown(expectBody(cancelled, 200, Progressed).progress)}`)
}

function randomPassword(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(18))).toString('base64url')
}

async function demo(once: boolean): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), `${NAME}-demo-`))
  const operator = { email: 'operator@example.com', password: randomPassword() }
  const stopped = Promise.withResolvers<void>()
  const provider = await startProvider()
  let system: System | undefined
  try {
    const ports = { GATEWAY_PORT: '3000', PROCESSOR_PORT: '3001', MONITOR_PORT: '3002' }
    system = await startInProcess({
      RATES_URL: process.env.RATES_URL,
      PAYOUT_URL: provider.url,
      LOG_LEVEL: 'error',
      DATA_DIR: dataDir,
      ...ports,
    })
    const { gatewayUrl, processorUrl, monitorUrl, environment } = system
    for (const name of serviceNames) {
      const [port, given] = [ports[portVariable(name)], environment[portVariable(name)]]
      if (port !== given) say(`Port ${port} is taken: ${name} listens on port ${given} instead.`)
    }
    await addOperator(dataDir, operator.email, operator.password)
    await demonstrate(system, operator)
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
    await provider.stop()
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
