import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { Kafka, type LogEntry, logLevel, RecordDecoder, type SASLOptions } from 'kafkajs'
import type { Logger } from '../../service/log.ts'
import type { KafkaAddress } from '../broker-url.ts'
import { decodeRecordBatches } from './record-batches.ts'

// kafkajs has one decoder for all its clients.
RecordDecoder.decode = decodeRecordBatches

/** An instance of kafkajs with connections of its own. */
export interface Client {
  readonly kafka: Kafka
  /**
   * Cuts every connection and refuses new ones, which ends whatever kafkajs waits for or retries. Its own `disconnect`
   * waits for answers, and for ever where none comes.
   */
  kill(): void
}

/** Creates a client, which connects when it is used. @throws Error once the broker is closed. */
export type Connect = () => Client

const CONNECTION_TIMEOUT_MS = 2500
const REQUEST_TIMEOUT_MS = 5000
const KEEP_ALIVE_MS = 30_000

/** Few, since kafkajs nests its retries, and the driver tries again with a new client. */
export const retry = { initialRetryTime: 100, maxRetryTime: 500, factor: 0.2, multiplier: 2, retries: 2 }

/** Makes the clients of one broker. `close` kills them all. */
export function createConnector(options: {
  readonly address: KafkaAddress
  readonly username: string | undefined
  readonly password: string | undefined
  readonly clientId: string
  readonly log: Logger
}) {
  const { address, username = '', password = '', clientId, log } = options
  // kafkajs splits an address at its first colon, so it gets a name in place of an IPv6 address.
  const hostsByName = new Map(address.brokers.map(({ host }, index) => [`ipv6-${index}`, host]))
  const brokers = address.brokers.map(({ host, port }, index) => `${isIP(host) === 6 ? `ipv6-${index}` : host}:${port}`)
  const sasl: SASLOptions | undefined = address.sasl && { mechanism: address.sasl, username, password }
  const clients = new Set<Client>()
  let made = 0
  let closed = false

  function connect(): Client {
    if (closed) throw new Error('The broker has been closed.')
    const sockets = new Set<Socket>()
    let killed = false
    // kafkajs tries only the first few. Each client begins with another, so that some get past brokers that are down.
    const first = made++ % brokers.length
    const kafka = new Kafka({
      clientId,
      brokers: [...brokers.slice(first), ...brokers.slice(0, first)],
      ssl: address.tls,
      ...(sasl && { sasl }),
      connectionTimeout: CONNECTION_TIMEOUT_MS,
      authenticationTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      retry,
      logLevel: kafkaLogLevel(log),
      logCreator: () => (entry) => write(log, entry),
      socketFactory({ host: name, port, onConnect }) {
        if (killed) throw new Error('This client has been closed.')
        const host = hostsByName.get(name) ?? name
        const socket = address.tls
          ? connectTls({ host, port, ...(isIP(host) ? {} : { servername: host }) }, onConnect)
          : connectTcp({ host, port }, onConnect)
        // Each request is one write that waits for its answer: Nagle's algorithm would only delay it.
        socket.setNoDelay(true)
        socket.setKeepAlive(true, KEEP_ALIVE_MS)
        sockets.add(socket)
        socket.once('close', () => sockets.delete(socket))
        return socket
      },
    })
    const client: Client = {
      kafka,
      kill() {
        killed = true
        clients.delete(client)
        for (const socket of sockets) socket.destroy(new Error('This client has been closed.'))
        sockets.clear()
      },
    }
    clients.add(client)
    return client
  }

  return {
    connect,
    close() {
      closed = true
      for (const client of clients) client.kill()
    },
  }
}

/** kafkajs logs retries as errors. The driver itself logs what matters, so these lines are for debugging. */
function kafkaLogLevel(log: Logger): logLevel {
  if (log.isLevelEnabled('trace')) return logLevel.DEBUG
  return log.isLevelEnabled('debug') ? logLevel.WARN : logLevel.NOTHING
}

/** Leaves out the other fields, which hold whole responses. */
function write(log: Logger, { namespace, level, log: { message, broker, groupId, error } }: LogEntry): void {
  const fields = {
    kafkajs: namespace,
    broker,
    group: groupId,
    ...(error === undefined ? {} : { reason: String(error) }),
  }
  if (level <= logLevel.WARN) log.debug(fields, message)
  else log.trace(fields, message)
}
