import { existsSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Kafka, logLevel } from 'kafkajs'
import { build, builtPath, run } from './build.ts'
import { environmentFor, freePort, isFree, runServer, type Server } from './server.ts'

export interface KafkaOptions {
  /** 127.0.0.1; one that is taken gives way to a free one, which is also the default. */
  port?: number
  /** Keeps the data there over stop and start. Without it the data is temporary. */
  directory?: string
  /** Ports of proxies: for each there is a listener that sends its clients back to that port. */
  proxies?: readonly number[]
  /** Adds a listener with TLS and SCRAM-SHA-512 for this user. */
  secure?: { username: string; password: string }
}

export interface KafkaServer extends Server {
  /** The port of the listener behind each of the proxies, in their order. */
  readonly behind: readonly number[]
  /** The listener with TLS and SCRAM-SHA-512; a client trusts it with NODE_EXTRA_CA_CERTS set to `caFile` as it starts. */
  readonly secure?: { url: string; username: string; password: string; caFile: string }
}

const jars = {
  name: 'kafka-4.3.0',
  sources: [join(import.meta.dir, 'pom.xml')],
  command: (output: string) => ['mvn', '-B', '-q', 'dependency:copy-dependencies', `-DoutputDirectory=${output}`],
}

// What tells clusters apart does not matter where each has one node; a fixed one saves a start of the JVM.
const clusterId = Buffer.from('posta-one-node-0').toString('base64url')

/** What this machine lacks to run Kafka without Docker, in words for a person; empty when nothing is missing. */
export function missingForKafka(): string[] {
  const missing: string[] = []
  if (javaVersion() < 17) missing.push('Java 17 or newer (`java` on the PATH)')
  if (!Bun.which('mvn') && !existsSync(builtPath(jars))) missing.push('Maven (`mvn` on the PATH)')
  return missing
}

/** Starts Apache Kafka as one node. Resolves when clients can publish and groups can join. */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaServer> {
  const missing = missingForKafka()
  if (missing.length > 0) throw new Error(`Kafka needs ${missing.join(' and ')}: install that first.`)
  const lib = await build(jars)
  const java = [
    'java',
    '-Xmx512m',
    '-XX:+UseSerialGC',
    '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn',
    '-cp',
    `${lib}/*`,
  ]

  const temporary = options.directory === undefined ? mkdtempSync(join(tmpdir(), 'posta-kafka-')) : undefined
  const directory = options.directory ?? temporary ?? ''
  mkdirSync(directory, { recursive: true })
  await refuseIfInUse(directory)
  const port = await freePort(options.port)
  const secure = options.secure && (await secureListener(directory, options.secure))
  const behind: number[] = []
  for (const _ of options.proxies ?? []) behind.push(await freePort())
  const proxied = (options.proxies ?? []).map((proxy, index) => ({ proxy, behind: behind[index] ?? 0 }))
  const properties = join(directory, 'server.properties')
  writeFileSync(properties, await settings(directory, port, proxied, secure), { mode: 0o600 })
  if (!existsSync(join(directory, 'log/meta.properties'))) {
    const user = options.secure
    const scram = user ? ['-S', `SCRAM-SHA-512=[name=${user.username},password=${user.password}]`] : []
    await run([...java, 'kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', properties, ...scram])
  }
  const server = await runServer({
    name: 'Kafka',
    url: `kafka://127.0.0.1:${port}`,
    command: [...java, 'kafka.Kafka', properties],
    log: join(directory, 'server.log'),
    answers: () => kafkaAnswers(`127.0.0.1:${port}`),
    ...(temporary && { temporary }),
  })
  return Object.assign(server, { behind, ...(secure && { secure: secure.client }) })
}

/** Kafka writes before it looks at its own lock, so a second one on the same data would damage it. */
async function refuseIfInUse(directory: string): Promise<void> {
  const properties = Bun.file(join(directory, 'server.properties'))
  if (!(await properties.exists())) return
  const controllerPort = Number(/CONTROLLER:\/\/127\.0\.0\.1:(\d+)/.exec(await properties.text())?.[1] ?? 0)
  if (controllerPort === 0 || (await isFree(controllerPort))) return
  throw new Error(`Another Kafka runs on ${directory} (port ${controllerPort} answers): stop that one first.`)
}

/** A group's coordinator is the last part of a broker to come up; who has one can do everything else too. */
export async function kafkaAnswers(address: string): Promise<void> {
  const kafka = new Kafka({
    clientId: 'posta-infra',
    brokers: [address],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 1000,
    requestTimeout: 5000,
    retry: { retries: 2, initialRetryTime: 100 },
  })
  const admin = kafka.admin()
  try {
    await admin.connect()
    await admin.describeGroups(['posta-infra'])
  } finally {
    await admin.disconnect()
  }
}

interface SecureListener {
  port: number
  settings: Record<string, string>
  client: { url: string; username: string; password: string; caFile: string }
}

interface ProxiedListener {
  proxy: number
  behind: number
}

async function settings(
  directory: string,
  port: number,
  proxied: readonly ProxiedListener[],
  secure?: SecureListener,
): Promise<string> {
  const controllerPort = await freePort()
  const forClients = [`PLAINTEXT://127.0.0.1:${port}`, ...(secure ? [`SASL_SSL://127.0.0.1:${secure.port}`] : [])]
  // A client asks where the brokers are, and goes there: that must be the proxy through which it came.
  const names = proxied.map((_, index) => `PROXY${index}`)
  const through = (portOf: (listener: ProxiedListener) => number) =>
    proxied.map((listener, index) => `${names[index]}://127.0.0.1:${portOf(listener)}`)
  const all: Record<string, string> = {
    'process.roles': 'broker,controller',
    'node.id': '1',
    'controller.quorum.voters': `1@127.0.0.1:${controllerPort}`,
    'controller.listener.names': 'CONTROLLER',
    listeners: [...forClients, ...through(({ behind }) => behind), `CONTROLLER://127.0.0.1:${controllerPort}`].join(),
    'advertised.listeners': [...forClients, ...through(({ proxy }) => proxy)].join(),
    'listener.security.protocol.map': [
      'PLAINTEXT:PLAINTEXT',
      'SASL_SSL:SASL_SSL',
      ...names.map((name) => `${name}:PLAINTEXT`),
      'CONTROLLER:PLAINTEXT',
    ].join(),
    'inter.broker.listener.name': 'PLAINTEXT',
    'log.dirs': join(directory, 'log'),
    // There is one node, so one replica; few partitions, so that a start is quick.
    'offsets.topic.replication.factor': '1',
    'offsets.topic.num.partitions': '4',
    'transaction.state.log.replication.factor': '1',
    'transaction.state.log.min.isr': '1',
    'share.coordinator.state.topic.replication.factor': '1',
    'share.coordinator.state.topic.min.isr': '1',
    'group.initial.rebalance.delay.ms': '0',
    // A killed node is let in again only when the session of its former life is over: 9 s by default.
    'broker.heartbeat.interval.ms': '500',
    'broker.session.timeout.ms': '2000',
    // As on Redpanda: who needs a topic creates it, and a misspelt name is an error.
    'auto.create.topics.enable': 'false',
    ...secure?.settings,
  }
  return `${Object.entries(all)
    .map(([key, value]) => `${key}=${value}`)
    .join('\n')}\n`
}

async function secureListener(
  directory: string,
  user: { username: string; password: string },
): Promise<SecureListener> {
  const port = await freePort()
  const keystore = join(directory, 'keystore.p12')
  const caFile = join(directory, 'ca.pem')
  const password = crypto.randomUUID()
  const store = ['-keystore', keystore, '-storetype', 'PKCS12', '-storepass', password, '-alias', 'kafka']
  const certificate = ['-dname', 'CN=localhost', '-ext', 'san=ip:127.0.0.1,dns:localhost', '-validity', '3650']
  await Bun.file(keystore)
    .delete()
    .catch(() => {})
  await run(['keytool', '-genkeypair', '-keyalg', 'EC', '-groupname', 'secp256r1', ...certificate, ...store])
  await run(['keytool', '-exportcert', '-rfc', '-file', caFile, ...store])
  return {
    port,
    settings: {
      'sasl.enabled.mechanisms': 'SCRAM-SHA-512',
      'listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config':
        'org.apache.kafka.common.security.scram.ScramLoginModule required;',
      'ssl.keystore.type': 'PKCS12',
      'ssl.keystore.location': keystore,
      'ssl.keystore.password': password,
    },
    client: { url: `kafka://127.0.0.1:${port}?tls=true&sasl=scram-sha-512`, ...user, caFile },
  }
}

function javaVersion(): number {
  if (!Bun.which('java')) return 0
  const { stderr } = Bun.spawnSync(['java', '-version'], { env: environmentFor(), stdout: 'ignore', stderr: 'pipe' })
  return Number(/version "(\d+)/.exec(stderr.toString())?.[1] ?? 0)
}
