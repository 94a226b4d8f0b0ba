import { describe } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Kafka, logLevel } from 'kafkajs'
import * as v from 'valibot'
import { groups, topics } from '../../common/messages/topics.ts'
import { type Environment, REPOSITORY_ROOT } from '../../common/service/config.ts'
import { databaseUrl, dropDatabase } from '../../common/testing/fresh-store.ts'
import { call, expectBody, Tokens } from '../../tools/client.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'

/** What a system runs on, made anew for one test file. */
export interface Parts {
  /** For services, in this process or in others. */
  readonly environment: Environment
  readonly dataDir: string
  dispose(): Promise<void>
}

/** Quick to start, alone on free ports, and offline. */
const base = {
  HOST: '127.0.0.1',
  GATEWAY_PORT: '0',
  PROCESSOR_PORT: '0',
  MONITOR_PORT: '0',
  RATES_URL: 'bundled:',
  LOG_LEVEL: 'silent',
}

export async function embeddedParts(): Promise<Parts> {
  const dataDir = mkdtempSync(join(tmpdir(), 'posta-test-'))
  return {
    environment: { ...base, DATA_DIR: dataDir },
    dataDir,
    dispose: async () => rmSync(dataDir, { recursive: true, force: true }),
  }
}

const { TEST_BROKER_URL, TEST_MONGO_URL } = process.env

/**
 * For tests that start, kill or attack whole systems for seconds each: `bun run verify` sets TEST_ALL=1, and `bun test`
 * alone stays quick.
 */
export const describeLong = describe.skipIf(process.env.TEST_ALL !== '1')

/** Why the real parts cannot be used; undefined where they can. */
export const noRealParts =
  TEST_BROKER_URL && TEST_MONGO_URL ? undefined : 'TEST_BROKER_URL and TEST_MONGO_URL are not set'

/** The broker and the MongoDB-wire server of the environment, with topics, groups and databases of a new system. */
export async function realParts(): Promise<Parts> {
  const parts = await embeddedParts()
  const brokerUrl = TEST_BROKER_URL ?? ''
  await removeTopics(brokerUrl)
  const processor = databaseUrl(TEST_MONGO_URL ?? '')
  const monitor = databaseUrl(TEST_MONGO_URL ?? '')
  return {
    ...parts,
    environment: {
      ...parts.environment,
      BROKER_URL: brokerUrl,
      PROCESSOR_STORE_URL: processor,
      MONITOR_STORE_URL: monitor,
    },
    async dispose() {
      await parts.dispose()
      await removeTopics(brokerUrl)
      for (const url of [processor, monitor]) await dropDatabase(url)
    },
  }
}

async function removeTopics(brokerUrl: string): Promise<void> {
  const brokers = (brokerUrl.split('?')[0] ?? '').replace('kafka://', '').split(',')
  const admin = new Kafka({ clientId: 'tests', brokers, logLevel: logLevel.NOTHING }).admin()
  await admin.connect()
  try {
    const ours = async () => (await admin.listTopics()).filter((topic) => Object.values<string>(topics).includes(topic))
    const found = (await admin.listGroups()).groups.map(({ groupId }) => groupId)
    await admin.deleteGroups(Object.values(groups).filter((group) => found.includes(group)))
    const existing = await ours()
    if (existing.length > 0) await admin.deleteTopics({ topics: existing })
    while ((await ours()).length > 0) await Bun.sleep(20)
  } finally {
    await admin.disconnect()
  }
}

/** So many of each service over the same parts, in this process. Gateways issue and accept each other's tokens. */
export async function startReplicas(
  parts: Parts,
  replicas: number,
  more: Environment = {},
): Promise<readonly System[]> {
  const systems: System[] = []
  for (let replica = 0; replica < replicas; replica++) {
    const issuer = systems[0]?.gatewayUrl
    systems.push(
      await startInProcess({ ...parts.environment, ...more, ...(issuer !== undefined && { TOKEN_ISSUER: issuer }) }),
    )
  }
  return systems
}

const User = v.object({ id: v.string(), email: v.string() })

let users = 0
export const PASSWORD = 'a long sentence that only I know'

/** A new user, logged in. */
export async function newUser(
  gatewayUrl: string,
): Promise<{ id: string; email: string; token: string; refreshToken: string }> {
  users += 1
  const credentials = { email: `user-${users}-${Date.now()}@example.com`, password: PASSWORD }
  const registered = await call('POST', `${gatewayUrl}/auth/register`, { body: credentials })
  const { id } = expectBody(registered, 201, User)
  const { accessToken, refreshToken } = expectBody(
    await call('POST', `${gatewayUrl}/auth/login`, { body: credentials }),
    200,
    Tokens,
  )
  return { id, email: credentials.email, token: accessToken, refreshToken }
}

export async function logIn(
  gatewayUrl: string,
  email: string,
  password = PASSWORD,
): Promise<v.InferOutput<typeof Tokens>> {
  return expectBody(await call('POST', `${gatewayUrl}/auth/login`, { body: { email, password } }), 200, Tokens)
}

/** The access token of a new operator, who was added as people do it: by the command, with the password on its input. */
export async function addOperator(parts: Parts, gatewayUrl: string): Promise<string> {
  const email = `operator-${Date.now()}@example.com`
  const child = Bun.spawn([process.execPath, 'gateway/tools/users.ts', 'add', email, '--role', 'operator'], {
    cwd: REPOSITORY_ROOT,
    env: { ...process.env, ...parts.environment },
    stdin: new Blob([`${PASSWORD}\n`]),
    stdout: 'ignore',
    stderr: 'inherit',
  })
  if ((await child.exited) !== 0) throw new Error('The operator could not be added.')
  return (await logIn(gatewayUrl, email)).accessToken
}
