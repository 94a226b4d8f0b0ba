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
import { demonstrateOperations } from './demo/operations.ts'
import { type Credentials, dataOf, say } from './demo/say.ts'
import { type System, startInProcess } from './in-process.ts'
import { startProvider } from './provider.ts'

const User = v.object({ id: v.string(), email: v.string() })
const LoggedIn = dataOf({ login: Tokens })
const Place = v.object({ type: v.string(), topic: v.string(), partition: v.number(), offset: v.number() })
const Event = v.object({ ...Place.entries, sincePreviousMs: v.optional(v.number(), 0) })
const Timeline = v.object({ items: v.pipe(v.array(Event), v.length(2)) })

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

  const id = await demonstrateOperations({ gatewayUrl, tokens: [token, login.accessToken], operator })

  const timeline = await askUntil(
    () => call('GET', `${monitorUrl}/operations/${id}/timeline`, { token }),
    ({ body }) => v.is(Timeline, body),
  )
  say('What happened to the first operation: GET /operations/{id}/timeline at monitor')
  for (const { type, topic, partition, offset, sincePreviousMs } of expectBody(timeline, 200, Timeline).items)
    say(`    +${sincePreviousMs} ms  ${type}  (${topic}, partition ${partition}, offset ${offset})`)
}

function randomPassword(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(18))).toString('base64url')
}

async function demo(once: boolean): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), `${NAME}-demo-`))
  const operator = { email: 'operator@example.com', password: randomPassword() }
  const stopped = Promise.withResolvers<void>()
  const provider = await startProvider() // example
  let system: System | undefined
  try {
    const ports = { GATEWAY_PORT: '3000', PROCESSOR_PORT: '3001', MONITOR_PORT: '3002' }
    system = await startInProcess({
      RATES_URL: process.env.RATES_URL, // example
      PAYOUT_URL: provider.url, // example
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
    await provider.stop() // example
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
