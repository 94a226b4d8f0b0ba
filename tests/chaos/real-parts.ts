import { setTimeout as sleep } from 'node:timers/promises'
import { Kafka, logLevel } from 'kafkajs'
import type { Delivered, Header, Outgoing } from '../../common/messages/message.ts'
import { type Topic, topicSettings, topics } from '../../common/messages/topics.ts'
import { serviceNames } from '../../common/name.ts'
import { startFerretdb } from '../../tools/infra/ferretdb.ts'
import { startKafka } from '../../tools/infra/kafka.ts'
import { missingTools } from '../../tools/infra/parts.ts'
import { freePort } from '../../tools/infra/server.ts'
import { missingForToxiproxy, startToxiproxy, type TcpProxy, type Toxic } from '../../tools/infra/toxiproxy.ts'
import { holdLocked } from './embedded-parts.ts'
import { toMessage } from './message.ts'
import type { ChaosParts } from './parts.ts'
import { type Link, links } from './plan.ts'
import type { Message } from './snapshot.ts'

const toxics: Readonly<Record<'latency' | 'resets' | 'half-open', Toxic>> = {
  latency: { type: 'latency', attributes: { latency: 400, jitter: 300 } },
  resets: { type: 'reset_peer', attributes: { timeout: 300 } },
  'half-open': { type: 'timeout', attributes: { timeout: 0 } },
}

/** What this machine lacks for them, in words for a person; empty when nothing is missing. */
export function missingForRealParts(): string[] {
  return [...new Set([...missingTools(), ...missingForToxiproxy()])]
}

/** Kafka and a MongoDB-wire server for each store, as processes of their own, and a proxy in each connection to them. */
export async function realParts(dataDir: string): Promise<ChaosParts> {
  const stopping: (() => Promise<void>)[] = []
  const dispose = async () => {
    await Promise.allSettled(stopping.map((stop) => stop()))
  }
  const keep = <Server extends { stop(): Promise<void> }>(server: Server): Server => {
    stopping.push(server.stop)
    return server
  }
  try {
    const toxiproxy = keep(await startToxiproxy())
    const ports = new Map<Link, number>()
    for (const link of links) ports.set(link, await freePort())
    const portOf = (link: Link) => ports.get(link) ?? 0
    const kafka = keep(await startKafka({ proxies: serviceNames.map((name) => portOf(`${name}-broker`)) }))
    const stores = { processor: keep(await startFerretdb()), monitor: keep(await startFerretdb()) }
    const proxies = new Map<Link, TcpProxy>()
    const open = async (link: Link, behind: number) => {
      proxies.set(link, await toxiproxy.proxy(link, behind, portOf(link)))
    }
    for (const [index, name] of serviceNames.entries()) await open(`${name}-broker`, kafka.behind[index] ?? 0)
    for (const name of ['processor', 'monitor'] as const)
      await open(`${name}-store`, Number(new URL(stores[name].url).port))

    const client = new Kafka({
      clientId: 'foreign',
      brokers: [kafka.url.replace('kafka://', '')],
      logLevel: logLevel.NOTHING,
      retry: { retries: 8 },
    })
    const deleted: Message[] = []
    const remade: { topic: string; atMs: number }[] = []
    const generationOf = (topic: string) => remade.filter((each) => each.topic === topic).length
    const storeUrl = (name: 'processor' | 'monitor') => `mongodb://127.0.0.1:${portOf(`${name}-store`)}/posta`

    return {
      kind: 'real',
      dataDir,
      // The checker reads them without a proxy in between.
      storeUrls: { processor: `${stores.processor.url}posta`, monitor: `${stores.monitor.url}posta` },
      remade,
      environmentOf: (service) => ({
        BROKER_URL: `kafka://127.0.0.1:${portOf(`${service}-broker`)}`,
        ...(service === 'processor' && { PROCESSOR_STORE_URL: storeUrl(service) }),
        ...(service === 'monitor' && { MONITOR_STORE_URL: storeUrl(service) }),
        ...(service !== 'gateway' && {
          JWKS_URL: `http://127.0.0.1:${portOf(`${service}-gateway`)}/.well-known/jwks.json`,
        }),
      }),
      async setGateway(url) {
        const port = Number(new URL(url).port)
        for (const name of ['processor', 'monitor'] as const) await open(`${name}-gateway`, port)
      },
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
      async takeStoreAway(service, ms) {
        await stores[service].kill('SIGKILL')
        await sleep(ms)
        await stores[service].restart()
      },
      lockDatabase: (ms) => holdLocked(`${dataDir}/gateway.db`, ms),
      async hurt(link, how, ms) {
        const proxy = proxies.get(link)
        if (!proxy) throw new Error(`There is no proxy for ${link}.`)
        await (how === 'partition' ? proxy.cut() : proxy.hurt(toxics[how]))
        try {
          await sleep(ms)
        } finally {
          await proxy.heal()
        }
      },
      async remakeTopic(topic) {
        // Right after a restart of the broker it may not lead all partitions yet.
        const before = await readTopic(client, topic).catch(async () => {
          await sleep(2000)
          return readTopic(client, topic)
        })
        deleted.push(...before.map((message) => toMessage(message, generationOf(topic))))
        const admin = client.admin()
        await admin.connect()
        try {
          await admin.deleteTopics({ topics: [topic] })
          remade.push({ topic, atMs: Date.now() })
          const { partitions, retentionMs } = topicSettings[topic]
          const configEntries = [{ name: 'retention.ms', value: String(retentionMs) }]
          // A service may have been faster, and a broker takes a moment to forget.
          await admin.createTopics({ topics: [{ topic, numPartitions: partitions, configEntries }] }).catch(() => {})
        } finally {
          await admin.disconnect()
        }
      },
      publishForeign: (messages) => publish(client, messages),
      async readTopics() {
        const now: Message[] = []
        for (const topic of Object.values(topics))
          now.push(...(await readTopic(client, topic)).map((message) => toMessage(message, generationOf(topic))))
        return [...deleted, ...now]
      },
      dispose,
    }
  } catch (error) {
    await dispose()
    throw error
  }
}

async function publish(client: Kafka, messages: readonly Outgoing[]): Promise<void> {
  const producer = client.producer({ allowAutoTopicCreation: false })
  await producer.connect()
  try {
    for (const { topic, key, value, headers } of messages) {
      const byName = Object.fromEntries(headers.map(([name, text]) => [name, Buffer.from(text)]))
      await producer.send({ topic, acks: -1, messages: [{ key, value: Buffer.from(value), headers: byName }] })
    }
  } finally {
    await producer.disconnect()
  }
}

const READ_WITHIN_MS = 60_000

/** The topic from its beginning to its end of now, partition by partition. */
async function readTopic(client: Kafka, topic: Topic): Promise<Delivered[]> {
  const admin = client.admin()
  await admin.connect()
  const offsets = await admin.fetchTopicOffsets(topic).finally(() => admin.disconnect())
  const left = new Map(
    offsets.flatMap(({ partition, low, high }) => (Number(high) > Number(low) ? [[partition, Number(high)]] : [])),
  )
  if (left.size === 0) return []
  const messages: Delivered[] = []
  const done = Promise.withResolvers<void>()
  const consumer = client.consumer({ groupId: `reader-${crypto.randomUUID()}`, sessionTimeout: 10_000 })
  await consumer.connect()
  try {
    await consumer.subscribe({ topics: [topic], fromBeginning: true })
    await consumer.run({
      autoCommit: false,
      async eachBatch({ batch }) {
        for (const { offset, key, value, headers, timestamp } of batch.messages)
          messages.push({
            topic,
            partition: batch.partition,
            offset: Number(offset),
            key,
            value,
            headers: Object.entries(headers ?? {}).flatMap(([name, values]) =>
              [values].flat().flatMap((each): Header[] => (each === undefined ? [] : [[name, Buffer.from(each)]])),
            ),
            timestampMs: Number(timestamp),
          })
        if (Number(batch.lastOffset()) + 1 >= (left.get(batch.partition) ?? 0)) left.delete(batch.partition)
        if (left.size === 0) done.resolve()
      },
    })
    const late = setTimeout(() => done.reject(new Error(`${topic} could not be read to its end.`)), READ_WITHIN_MS)
    await done.promise.finally(() => clearTimeout(late))
  } finally {
    await consumer.disconnect()
  }
  return messages.sort((a, b) => a.partition - b.partition || a.offset - b.offset)
}
