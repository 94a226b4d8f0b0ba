import { describe } from 'bun:test'
import { groups, topics } from '../../common/messages/topics.ts'
import type { Environment } from '../../common/service/config.ts'
import { eventually } from '../../common/testing/eventually.ts'
import { databaseUrl, dropDatabase } from '../../common/testing/fresh-store.ts'
import { isLong } from '../../common/testing/long.ts'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import { type System, startInProcess } from '../../tools/in-process.ts'
import { kafkaClient } from './foreign-client.ts'

/** What a system runs on, new for each test file: a broker, its stores and a folder. */
export interface Parts {
  /** For the services, in this process or in their own. */
  readonly environment: Environment
  readonly dataDir: string
  dispose(): Promise<void>
}

/** Files in a folder: quick to start, and without the network. */
export async function embeddedParts(): Promise<Parts> {
  const { path, remove } = temporaryFolder()
  return {
    environment: {
      HOST: '127.0.0.1',
      GATEWAY_PORT: '0',
      PROCESSOR_PORT: '0',
      MONITOR_PORT: '0',
      RATES_URL: 'bundled:', // example
      LOG_LEVEL: 'silent',
      DATA_DIR: path,
    },
    dataDir: path,
    dispose: async () => remove(),
  }
}

const { TEST_BROKER_URL, TEST_MONGO_URL } = process.env

/** Why there are no real parts; undefined where there are. */
export const noRealParts =
  TEST_BROKER_URL && TEST_MONGO_URL ? undefined : 'TEST_BROKER_URL and TEST_MONGO_URL are not set'

/** The broker and the MongoDB-wire server of the environment, with topics, groups and databases of a new system. */
export async function realParts(): Promise<Parts> {
  const parts = await embeddedParts()
  const brokerUrl = TEST_BROKER_URL ?? ''
  const [processorUrl, monitorUrl] = [databaseUrl(TEST_MONGO_URL ?? ''), databaseUrl(TEST_MONGO_URL ?? '')]
  await removeTopics(brokerUrl)
  return {
    ...parts,
    environment: {
      ...parts.environment,
      BROKER_URL: brokerUrl,
      PROCESSOR_STORE_URL: processorUrl,
      MONITOR_STORE_URL: monitorUrl,
    },
    async dispose() {
      await parts.dispose()
      await removeTopics(brokerUrl)
      for (const url of [processorUrl, monitorUrl]) await dropDatabase(url)
    },
  }
}

async function removeTopics(brokerUrl: string): Promise<void> {
  const admin = kafkaClient(brokerUrl).admin()
  await admin.connect()
  try {
    const ours = async () => (await admin.listTopics()).filter((topic) => Object.values<string>(topics).includes(topic))
    const found = (await admin.listGroups()).groups.map(({ groupId }) => groupId)
    await admin.deleteGroups(Object.values(groups).filter((group) => found.includes(group)))
    const existing = await ours()
    if (existing.length > 0) await admin.deleteTopics({ topics: existing })
    await eventually(async () => (await ours()).length === 0)
  } finally {
    await admin.disconnect()
  }
}

/** See `isLong`. */
export const describeLong = describe.skipIf(!isLong)

export type MakeParts = () => Promise<Parts>

/** Defines tests on embedded parts, and on the real ones where there are some. */
export function describeOnParts(
  describeEmbedded: (name: string, define: () => void) => void,
  define: (makeParts: MakeParts, kind: 'embedded' | 'real') => void,
): void {
  describeEmbedded('on embedded parts', () => define(embeddedParts, 'embedded'))
  const skipped = noRealParts === undefined ? '' : ` (skipped: ${noRealParts})`
  describe.skipIf(skipped !== '')(`on real parts${skipped}`, () => define(realParts, 'real'))
}

/** Starts several of each service over the same parts, in this process. The gateways accept each other's tokens. */
export async function startReplicas(parts: Parts, replicas: number): Promise<[System, ...System[]]> {
  const systems: [System, ...System[]] = [await startInProcess(parts.environment)]
  while (systems.length < replicas)
    systems.push(await startInProcess({ ...parts.environment, TOKEN_ISSUER: systems[0].gatewayUrl }))
  return systems
}
