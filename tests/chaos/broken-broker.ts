import { setTimeout as sleep } from 'node:timers/promises'
import type { BatchHandler, Broker } from '../../common/broker/broker.ts'
import type { Delivered, Outgoing, RecordPosition } from '../../common/messages/message.ts'
import { topics } from '../../common/messages/topics.ts'
import type { ServiceName } from '../../common/name.ts'
import type { Point } from './plan.ts'
import type { Random } from './random.ts'
import type { Safeguard } from './safeguards.ts'

/** What is wrong with the broker of a process, at the moment. The run changes it while the process runs. */
export interface Trouble {
  /** The process kills itself when it gets here. */
  killAt: Point | undefined
  /** Messages are published twice, and delivered again together with some before them. */
  duplicates: boolean
  /** What is delivered together comes in another order, though in order per key. */
  otherOrder: boolean
  /** So many of the next requests are read wrongly at the first look. */
  misread: number
}

const REMEMBERED = 200
/** How long what should have come first is late, where its safeguard is taken out. */
const LATE_MS = 400

/** What matters to the way of an operation: requests at gateway, results at processor. Monitor only listens. */
const published: Readonly<Record<ServiceName, string | undefined>> = {
  gateway: topics.requests,
  processor: topics.results,
  monitor: undefined,
}

/**
 * A broker that does to its service what a real one may do within the port's promises: duplicates, another order between
 * keys, deliveries again. It kills the process between two steps. `without` a safeguard, it breaks the promise itself.
 */
export function breakBroker(
  broker: Broker,
  options: {
    readonly service: ServiceName
    readonly trouble: Trouble
    readonly random: Random
    readonly without: Safeguard | undefined
    /** Told of each operation whose request is read wrongly. */
    readonly onMisread: (operation: string) => void
  },
): Broker {
  const { service, trouble, random, without } = options
  /** Operations that were misread, or, without idempotency, performed. */
  const performed = new Set<string>()
  let late: Promise<unknown> = Promise.resolve()

  async function publish(messages: readonly Outgoing[]): Promise<readonly RecordPosition[]> {
    const onTheWay = messages.some(({ topic }) => topic === published[service])
    if (onTheWay) dieAt('before-publish')
    if (messages.some(({ topic }) => topic === topics.deadLetters)) dieAt('before-dead-letter')
    const asked = without === 'idempotency' ? messages.map(withOwnId) : messages
    if (without === 'outbox' && service === 'gateway') return publishLate(asked)
    const places = await broker.publish(asked)
    if (trouble.duplicates) await broker.publish(asked.filter(() => random.chance(0.5)))
    if (onTheWay) dieAt('after-publish')
    return places
  }

  /** As without an outbox: it says that the broker holds what it has not even been sent. */
  function publishLate(messages: readonly Outgoing[]): readonly RecordPosition[] {
    late = late
      .then(() => sleep(LATE_MS))
      .then(() => broker.publish(messages))
      .catch(() => {})
    setTimeout(() => dieAt('after-publish'), LATE_MS / 2)
    return messages.map(({ topic }) => ({ topic, partition: 0, offset: 0 }))
  }

  function around(handle: BatchHandler): BatchHandler {
    const before = new Map<string, Delivered[]>()
    return async (batch) => {
      const messages = batch.messages.map(look)
      dieAt('handling')
      if (without === 'offset-order' && service === 'processor') {
        late = late
          .then(() => sleep(LATE_MS))
          .then(() => handle({ ...batch, messages }))
          .catch(() => {})
        setTimeout(() => dieAt('before-offset'), LATE_MS / 2)
        return undefined
      }
      let result = await handle({ ...batch, messages: trouble.otherOrder ? mixKeys(messages) : messages })
      const place = `${batch.topic}/${batch.partition}`
      const known = before.get(place) ?? []
      if (trouble.duplicates && random.chance(0.5)) {
        const again = known.slice(random.integer(0, known.length))
        result = await handle({ ...batch, messages: [...again, ...batch.messages].map(look) })
      }
      before.set(place, [...known, ...batch.messages].slice(-REMEMBERED))
      dieAt('before-offset')
      return result
    }
  }

  function dieAt(point: Point): void {
    if (trouble.killAt !== point) return
    // From outside, while this process goes on with what it does.
    if (point === 'handling') Bun.spawn(['kill', '-9', String(process.pid)], { stdio: ['ignore', 'ignore', 'ignore'] })
    else process.kill(process.pid, 'SIGKILL')
  }

  /** Another order between keys: one key after the other. The batch's last message stays the last. */
  function mixKeys(messages: readonly Delivered[]): Delivered[] {
    const byKey = Map.groupBy(messages, keyOf)
    const last = messages.at(-1)
    const keys = random.shuffle([...byKey.keys()].filter((key) => !last || key !== keyOf(last)))
    return [...keys, ...(last ? [keyOf(last)] : [])].flatMap((key) => byKey.get(key) ?? [])
  }

  function look(message: Delivered): Delivered {
    const operation = service === 'processor' ? operationOf(message) : undefined
    if (operation === undefined) return message
    if (without === 'idempotency') return performAnew(message, operation)
    if (trouble.misread === 0 || performed.has(operation)) return message
    performed.add(operation)
    trouble.misread -= 1
    options.onMisread(operation)
    return misread(message)
  }

  /** Without idempotency each delivery after the first is an operation of its own, as far as the store can tell. */
  function performAnew(message: Delivered, operation: string): Delivered {
    if (performed.has(operation)) return withOperation(message, `${operation}~${Bun.randomUUIDv7()}`)
    performed.add(operation)
    return message
  }

  return {
    publish,
    subscribe: (group, to, handle) => broker.subscribe(group, to, around(handle)),
    ping: broker.ping,
    close: broker.close,
  }
}

/** Its value is damaged at the first look, as by bad memory, and whole at every later one. */
function misread(message: Delivered): Delivered {
  const damaged = Buffer.from(JSON.stringify({ ...dataOf(message), input: { amount: 'damaged' } }))
  let looks = 0
  return {
    ...message,
    get value() {
      looks += 1
      return looks === 1 ? damaged : message.value
    },
  }
}

function keyOf({ key }: Delivered): string {
  return key ? Buffer.from(key).toString('latin1') : ''
}

function dataOf({ value }: Pick<Outgoing, 'value'> | Delivered): Record<string, unknown> {
  try {
    const data: unknown = JSON.parse(Buffer.from(value ?? []).toString('utf8'))
    return typeof data === 'object' && data !== null ? { ...data } : {}
  } catch {
    return {}
  }
}

function operationOf(message: Delivered): string | undefined {
  const { operation } = dataOf(message)
  return message.topic === topics.requests && typeof operation === 'string' ? operation : undefined
}

function withOperation<Message extends Outgoing | Delivered>(message: Message, operation: string): Message {
  return { ...message, value: Buffer.from(JSON.stringify({ ...dataOf(message), operation })) }
}

/** The id that clients know, in the place of one that `performAnew` made. */
function withOwnId(message: Outgoing): Outgoing {
  const { operation } = dataOf(message)
  if (typeof operation !== 'string' || !operation.includes('~')) return message
  const headers = message.headers.map(
    ([name, value]) =>
      [
        name,
        Buffer.from(
          Buffer.from(value)
            .toString('utf8')
            .replace(/~[\da-f-]{36}/, ''),
        ),
      ] as const,
  )
  return { ...withOperation(message, operation.replace(/~.*/, '')), headers }
}
