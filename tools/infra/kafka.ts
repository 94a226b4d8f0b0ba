import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Kafka, logLevel } from 'kafkajs'
import { NAME } from '../../common/name.ts'
import { build, builtPath, run } from './build.ts'
import { environmentFor, freePort, isFree, runServer, type Server, type ServerOptions, serverFolder } from './server.ts'

export interface KafkaOptions extends ServerOptions {
  /** Ports of proxies. For each one Kafka has a listener that tells its clients to connect to that port. */
  proxies?: readonly number[]
  /** Adds a listener with TLS and SCRAM-SHA-512 for this user. */
  secure?: { username: string; password: string }
}

export interface KafkaServer extends Server {
  /** The port of the listener behind each proxy, in the order of `proxies`. */
  readonly behind: readonly number[]
  /** The listener with TLS and SCRAM-SHA-512. A client that starts with NODE_EXTRA_CA_CERTS set to `caFile` trusts it. */
  readonly secure?: { url: string; username: string; password: string; caFile: string }
}

const jars = {
  name: 'kafka-4.3.0',
  sources: [join(import.meta.dir, 'pom.xml')],
  command: (output: string) => ['mvn', '-B', '-q', 'dependency:copy-dependencies', `-DoutputDirectory=${output}`],
}

// Clusters of one node need not be told apart. A fixed id, of 16 bytes, saves a start of the JVM.
const clusterId = Buffer.from('one-kafka-node-0').toString('base64url')

/** What this machine lacks to run Kafka without Docker, in words for a person; empty when nothing is missing. */
export function missingForKafka(): string[] {
  const missing: string[] = []
  if (javaVersion() < 17) missing.push('Java 17 or newer (`java` on the PATH)')
  if (!Bun.which('mvn') && !existsSync(builtPath(jars))) missing.push('Maven (`mvn` on the PATH)')
  return missing
}

/** Starts Apache Kafka as one node. Resolves when clients can publish and groups can join. */
export async function startKafka(options: KafkaOptions = {}): Promise<KafkaServer> {
  const lib = await build(jars)
  const logging = '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn'
  const java = ['java', '-Xmx512m', '-XX:+UseSerialGC', logging, '-cp', `${lib}/*`]

  const at = serverFolder('kafka', options.directory)
  const directory = at.folder
  await refuseIfInUse(directory)
  const port = await freePort(options.port)
  const listeners: Listener[] = [{ name: 'PLAINTEXT', port, advertised: port }]
  const behind: number[] = []
  for (const [index, proxy] of (options.proxies ?? []).entries()) {
    const port = await freePort()
    behind.push(port)
    // A client asks where the brokers are and connects there. That must be the proxy that it came through.
    listeners.push({ name: `PROXY${index}`, port, advertised: proxy })
  }
  const secure = options.secure && (await secureListener(directory, options.secure))
  if (secure) listeners.push({ name: 'SASL_SSL', port: secure.port, advertised: secure.port })
  const properties = join(directory, 'server.properties')
  writeFileSync(properties, settings(directory, listeners, await freePort(), secure?.settings), { mode: 0o600 })
  if (!existsSync(join(directory, 'log/meta.properties'))) {
    const user = options.secure
    const scram = user ? ['-S', `SCRAM-SHA-512=[name=${user.username},password=${user.password}]`] : []
    await run([...java, 'kafka.tools.StorageTool', 'format', '-t', clusterId, '-c', properties, ...scram])
  }
  const server = await runServer({
    name: 'Kafka',
    url: `kafka://127.0.0.1:${port}`,
    command: [...java, 'kafka.Kafka', properties],
    answers: () => kafkaAnswers(`127.0.0.1:${port}`),
    ...at,
  })
  return Object.assign(server, { behind, ...(secure && { secure: secure.client }) })
}

/** Kafka writes before it checks its own lock, so a second one on the same data would damage it. */
async function refuseIfInUse(directory: string): Promise<void> {
  const properties = Bun.file(join(directory, 'server.properties'))
  if (!(await properties.exists())) return
  const controllerPort = Number(/CONTROLLER:\/\/127\.0\.0\.1:(\d+)/.exec(await properties.text())?.[1] ?? 0)
  if (controllerPort === 0 || (await isFree(controllerPort))) return
  throw new Error(`Another Kafka runs on ${directory} (port ${controllerPort} answers): stop that one first.`)
}

/** Rejects until a group can join: a group's coordinator is what starts last in a broker. */
export async function kafkaAnswers(address: string): Promise<void> {
  const kafka = new Kafka({
    clientId: `${NAME}-infra`,
    brokers: [address],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 1000,
    requestTimeout: 5000,
    retry: { retries: 2, initialRetryTime: 100 },
  })
  const admin = kafka.admin()
  try {
    await admin.connect()
    await admin.describeGroups([`${NAME}-infra`])
  } finally {
    await admin.disconnect()
  }
}

interface Listener {
  name: string
  port: number
  /** The port that clients are told. */
  advertised: number
}

function settings(directory: string, listeners: readonly Listener[], controllerPort: number, secure = ''): string {
  const urls = (of: 'port' | 'advertised') => listeners.map((at) => `${at.name}://127.0.0.1:${at[of]}`)
  const protocols = listeners.map(({ name }) => `${name}:${name === 'SASL_SSL' ? name : 'PLAINTEXT'}`)
  return `
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${controllerPort}
controller.listener.names=CONTROLLER
listeners=${[...urls('port'), `CONTROLLER://127.0.0.1:${controllerPort}`]}
advertised.listeners=${urls('advertised')}
listener.security.protocol.map=${[...protocols, 'CONTROLLER:PLAINTEXT']}
inter.broker.listener.name=PLAINTEXT
log.dirs=${join(directory, 'log')}
# One node holds one replica. Few partitions make a start quick.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# A node that was killed can join again only when its old session has timed out: 9 s by default.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
# As on Redpanda: a topic exists only once someone creates it, so a misspelt name is an error.
auto.create.topics.enable=false
${secure}`
}

async function secureListener(directory: string, user: { username: string; password: string }) {
  const port = await freePort()
  const keystore = join(directory, 'keystore.p12')
  const caFile = join(directory, 'ca.pem')
  const password = crypto.randomUUID()
  const store = ['-keystore', keystore, '-storetype', 'PKCS12', '-storepass', password, '-alias', 'kafka']
  const certificate = ['-dname', 'CN=localhost', '-ext', 'san=ip:127.0.0.1,dns:localhost', '-validity', '3650']
  rmSync(keystore, { force: true })
  await run(['keytool', '-genkeypair', '-keyalg', 'EC', '-groupname', 'secp256r1', ...certificate, ...store])
  await run(['keytool', '-exportcert', '-rfc', '-file', caFile, ...store])
  return {
    port,
    settings: `
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PKCS12
ssl.keystore.location=${keystore}
ssl.keystore.password=${password}
`,
    client: { url: `kafka://127.0.0.1:${port}?tls=true&sasl=scram-sha-512`, ...user, caFile },
  }
}

function javaVersion(): number {
  if (!Bun.which('java')) return 0
  const { stderr } = Bun.spawnSync(['java', '-version'], { env: environmentFor(), stdout: 'ignore', stderr: 'pipe' })
  return Number(/version "(\d+)/.exec(stderr.toString())?.[1] ?? 0)
}
