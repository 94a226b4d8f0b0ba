import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import { type KafkaServer, missingForKafka, startKafka } from '../../../tools/infra/kafka.ts'
import { groups, topics } from '../../messages/topics.ts'
import type { ChildTarget, ChildTask } from '../broker.suite.child.ts'
import { eventually } from '../broker.suite.ts'
import type { Broker } from '../broker.ts'
import { openQuietly } from './kafka.test.child.ts'

// These tests kill the broker, so they start one of their own.
const possible = process.env.TEST_BROKER_URL !== undefined && missingForKafka().length === 0
const TIMEOUT_MS = 90_000

describe.skipIf(!possible)('on a Kafka that fails', () => {
  const user = { username: 'posta', password: `${crypto.randomUUID()}` }
  let server: KafkaServer
  let brokers: Broker[] = []
  let namespace = ''

  beforeAll(async () => {
    server = await startKafka({ secure: user })
  }, TIMEOUT_MS)

  afterAll(() => server.stop(), TIMEOUT_MS)

  afterEach(async () => {
    await Promise.all(brokers.map((broker) => broker.close()))
    brokers = []
  }, TIMEOUT_MS)

  function open(options: { url?: string; namespace?: string; username?: string; password?: string } = {}): Broker {
    const broker = openQuietly({ url: server.url, namespace, ...options })
    brokers.push(broker)
    return broker
  }

  function fresh(): void {
    namespace = `test-${Bun.randomUUIDv7()}`
  }

  function outgoing(key: string, text: string) {
    return { topic: topics.requests, key, value: Buffer.from(text), headers: [] }
  }

  async function took(work: () => unknown): Promise<number> {
    const startMs = performance.now()
    await work()
    return performance.now() - startMs
  }

  test(
    'when the broker is killed and restarted, no published message is lost or out of order, and everything recovers',
    async () => {
      fresh()
      const broker = open()
      const handled = new Map<string, number[]>()
      const subscription = await broker.subscribe(groups.processor, [topics.requests], async ({ messages }) => {
        for (const { key, value } of messages) {
          const list = handled.get(Buffer.from(key ?? []).toString()) ?? []
          handled.set(Buffer.from(key ?? []).toString(), list)
          list.push(Number(Buffer.from(value ?? []).toString()))
        }
      })
      const published: number[] = []
      let stop = false
      const publishing = (async () => {
        for (let i = 0; !stop; i++) {
          // Like the outbox: a rejected message is published again before any newer one.
          while (
            !(await broker.publish([outgoing(`key-${i % 5}`, `${i}`)]).then(
              () => true,
              () => false,
            ))
          ) {}
          published.push(i)
        }
      })()
      await eventually(() => published.length > 50, 'messages flow')
      await server.kill()
      await eventually(() => subscription.state() === 'recovering', 'the subscription notices')
      await expect(broker.ping()).rejects.toThrow('does not answer')
      await server.restart()
      const before = published.length
      await eventually(() => published.length > before + 50, 'messages flow again', 60_000)
      stop = true
      await publishing
      const firsts = () => [...handled.values()].flatMap((numbers) => [...new Set(numbers)])
      await eventually(() => firsts().length === published.length, 'everything has been handled', 60_000)
      for (const numbers of handled.values()) {
        const inOrder = [...new Set(numbers)]
        expect(inOrder).toEqual(inOrder.toSorted((a, b) => a - b))
      }
      await eventually(() => subscription.state() === 'running', 'the subscription runs')
      await broker.ping()
    },
    2 * TIMEOUT_MS,
  )

  test(
    'while the broker is down every call ends in bounded time; a subscription begun then runs once it is back',
    async () => {
      fresh()
      const before = open()
      await before.subscribe(groups.monitor, [topics.requests], async () => {})
      await before.publish([outgoing('a', 'before')])
      await server.kill()
      const broker = open()
      const handled: string[] = []
      expect(await took(() => expect(broker.ping()).rejects.toThrow('does not answer'))).toBeLessThan(3000)
      let state = () => 'none'
      const subscribed = took(async () => {
        const subscription = await broker.subscribe(groups.processor, [topics.requests], async ({ messages }) => {
          handled.push(...messages.map(({ value }) => Buffer.from(value ?? []).toString()))
        })
        state = subscription.state
      })
      expect(await took(() => expect(broker.publish([outgoing('a', 'lost')])).rejects.toThrow())).toBeLessThan(12_000)
      expect(await subscribed).toBeLessThan(5000)
      expect(state()).toBe('recovering')
      expect(await took(() => before.close())).toBeLessThan(8000)
      await server.restart()
      await eventually(() => state() === 'running', 'the subscription runs', 40_000)
      await broker.publish([outgoing('a', 'after')])
      await eventually(() => handled.includes('after'), 'a message arrives')
      expect(handled).toContain('before')
    },
    2 * TIMEOUT_MS,
  )

  test(
    'while the broker hangs with open connections, every call ends in bounded time',
    async () => {
      fresh()
      const [broker, other] = [open(), open()]
      const subscription = await broker.subscribe(groups.processor, [topics.requests], async () => {})
      await broker.publish([outgoing('a', 'before')])
      await broker.ping()
      await server.kill('SIGSTOP')
      try {
        await eventually(() => subscription.state() === 'recovering', 'the subscription notices')
        expect(await took(() => expect(broker.ping()).rejects.toThrow('does not answer'))).toBeLessThan(3100)
        expect(await took(() => expect(broker.publish([outgoing('a', 'x')])).rejects.toThrow())).toBeLessThan(12_000)
        expect(await took(() => Promise.all([broker.close(), other.close()]))).toBeLessThan(8000)
        await subscription.ended
      } finally {
        await server.kill('SIGCONT')
      }
    },
    TIMEOUT_MS,
  )

  /** Runs a task in another process, since a process reads the certificates that it trusts when it starts. */
  async function runSecurely(task: ChildTask, password: string) {
    const { url, username, caFile } = server.secure ?? {}
    const target: ChildTarget = {
      module: join(import.meta.dir, 'kafka.test.child.ts'),
      open: 'openQuietly',
      options: { url, namespace, username, password },
    }
    const child = Bun.spawn(
      [process.execPath, join(import.meta.dir, '../broker.suite.child.ts'), JSON.stringify({ target, task })],
      { env: { ...process.env, NODE_EXTRA_CA_CERTS: caFile }, stdin: 'pipe', stdout: 'pipe', stderr: 'pipe' },
    )
    const [out, err] = await Promise.all([new Response(child.stdout).text(), new Response(child.stderr).text()])
    await child.exited
    return { out, err }
  }

  test(
    'with tls=true and sasl=scram-sha-512 in the URL, messages go over TLS after a SCRAM login',
    async () => {
      fresh()
      await open().publish([outgoing('a', 'in plain text')])
      const task = { publish: { topic: topics.requests, key: 'a', texts: ['encrypted'] } }
      const { out } = await runSecurely(task, user.password)
      expect(JSON.parse(out)).toMatchObject({ topic: topics.requests, offset: 1 })
    },
    TIMEOUT_MS,
  )

  test(
    'a wrong password makes the first subscribe reject; the error does not contain the password',
    async () => {
      fresh()
      const task = { subscribe: { group: groups.monitor, topics: [topics.requests], hang: false } }
      const { out, err } = await runSecurely(task, 'not-the-password')
      expect(out).toBe('')
      expect(err).toContain('authentication failed')
      expect(err).not.toContain('not-the-password')
    },
    TIMEOUT_MS,
  )

  test(
    'a certificate from an unknown authority is refused',
    async () => {
      fresh()
      const { url } = server.secure ?? {}
      const refusal = await open({ ...user, ...(url && { url }) })
        .ping()
        .catch((error: unknown) => error)
      expect(refusal).toBeInstanceOf(Error)
      expect(refusal instanceof Error ? String(refusal.cause) : '').toContain('certificate')
    },
    TIMEOUT_MS,
  )
})
