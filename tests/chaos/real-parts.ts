import { setTimeout as sleep } from 'node:timers/promises'
import { topicSettings, topics } from '../../common/messages/topics.ts'
import { serviceNames } from '../../common/name.ts'
import { startFerretdb } from '../../tools/infra/ferretdb.ts'
import { startKafka } from '../../tools/infra/kafka.ts'
import { missingTools } from '../../tools/infra/parts.ts'
import { freePort } from '../../tools/infra/server.ts'
import { missingForToxiproxy, startToxiproxy, type TcpProxy, type Toxic } from '../../tools/infra/toxiproxy.ts'
import { kafkaClient, readTopics } from '../testing/foreign-client.ts'
import { holdLocks } from '../testing/hold-locks.ts'
import { type ChaosParts, type Link, type LinkFault, links } from './parts.ts'
import type { Message } from './snapshot.ts'
import { toMessage } from './to-message.ts'

const toxics: Readonly<Record<Exclude<LinkFault, 'partition'>, Toxic>> = {
  latency: { type: 'latency', attributes: { latency: 400, jitter: 300 } },
  resets: { type: 'reset_peer', attributes: { timeout: 300 } },
  'half-open': { type: 'timeout', attributes: { timeout: 0 } },
}

/** What this machine lacks for the real parts, in words for a person; empty when nothing is missing. */
export function missingForRealParts(): string[] {
  return [...new Set([...missingTools(), ...missingForToxiproxy()])]
}

/** Starts Kafka and a MongoDB-wire server for each store, with a proxy in each connection to them and to gateway. */
export async function realParts(dataDir: string, gatewayUrl: string): Promise<ChaosParts> {
  await using starting = new AsyncDisposableStack()
  const keep = <Server extends { stop(): Promise<void> }>(server: Server): Server => {
    starting.defer(() => server.stop().catch(() => {}))
    return server
  }
  const toxiproxy = keep(await startToxiproxy())
  const ports = new Map<Link, number>()
  for (const link of links) ports.set(link, await freePort())
  const portOf = (link: Link) => ports.get(link) ?? 0
  const kafka = keep(await startKafka({ proxies: serviceNames.map((name) => portOf(`${name}-broker`)) }))
  const stores = { processor: keep(await startFerretdb()), monitor: keep(await startFerretdb()) }
  const proxies = new Map<Link, TcpProxy>()
  const open = async (link: Link, target: string | number) => {
    const port = typeof target === 'number' ? target : Number(new URL(target).port)
    proxies.set(link, await toxiproxy.proxy(link, port, portOf(link)))
  }
  for (const [index, name] of serviceNames.entries()) await open(`${name}-broker`, kafka.behind[index] ?? 0)
  for (const name of ['processor', 'monitor'] as const) {
    await open(`${name}-store`, stores[name].url)
    await open(`${name}-gateway`, gatewayUrl)
  }

  const client = kafkaClient(kafka.url)
  const deleted: Message[] = []
  const recreated: { topic: string; atMs: number }[] = []
  const read = async (topic: (typeof topics)[keyof typeof topics]) => {
    const generation = recreated.filter((each) => each.topic === topic).length
    return (await readTopics(client, [topic])).map((message) => toMessage(message, generation))
  }
  const storeUrl = (name: 'processor' | 'monitor') => `mongodb://127.0.0.1:${portOf(`${name}-store`)}/posta`
  const stopping = starting.move()

  return {
    // The checker reads them without a proxy in between.
    storeUrls: { processor: `${stores.processor.url}posta`, monitor: `${stores.monitor.url}posta` },
    environmentOf: (service) => ({
      BROKER_URL: `kafka://127.0.0.1:${portOf(`${service}-broker`)}`,
      ...(service === 'processor' && { PROCESSOR_STORE_URL: storeUrl(service) }),
      ...(service === 'monitor' && { MONITOR_STORE_URL: storeUrl(service) }),
      ...(service !== 'gateway' && {
        JWKS_URL: `http://127.0.0.1:${portOf(`${service}-gateway`)}/.well-known/jwks.json`,
      }),
    }),
    async freezeBroker(ms) {
      await kafka.kill('SIGSTOP')
      await sleep(ms)
      await kafka.kill('SIGCONT')
    },
    async killBroker(ms) {
      await kafka.kill('SIGKILL')
      await sleep(ms)
      await kafka.restart()
    },
    restartBroker: () => kafka.restart(),
    async stopStore(service, ms) {
      await stores[service].kill('SIGKILL')
      await sleep(ms)
      await stores[service].restart()
    },
    lockDatabase: (ms) => holdLocks([`${dataDir}/gateway.db`], () => sleep(ms)),
    async disturb(link, how, ms) {
      const proxy = proxies.get(link)
      if (!proxy) throw new Error(`There is no proxy for ${link}.`)
      await (how === 'partition' ? proxy.cut() : proxy.hurt(toxics[how]))
      try {
        await sleep(ms)
      } finally {
        await proxy.heal()
      }
    },
    async recreateTopic(topic) {
      // Right after a restart of the broker it may not lead all partitions yet.
      deleted.push(...(await read(topic).catch(() => sleep(2000).then(() => read(topic)))))
      const admin = client.admin()
      await admin.connect()
      try {
        await admin.deleteTopics({ topics: [topic] })
        recreated.push({ topic, atMs: Date.now() })
        const { partitions, retentionMs } = topicSettings[topic]
        const configEntries = [{ name: 'retention.ms', value: String(retentionMs) }]
        // This may fail: a service creates it first, or the broker has not finished the deletion.
        await admin.createTopics({ topics: [{ topic, numPartitions: partitions, configEntries }] }).catch(() => {})
      } finally {
        await admin.disconnect()
      }
    },
    recreated,
    foreign: { BROKER_URL: kafka.url },
    async readTopics() {
      const now: Message[] = []
      for (const topic of Object.values(topics)) now.push(...(await read(topic)))
      return [...deleted, ...now]
    },
    dispose: () => stopping.disposeAsync(),
  }
}
