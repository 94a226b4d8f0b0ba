import { setTimeout as sleep } from 'node:timers/promises'
import type { BatchHandler, Broker } from '../../common/broker/broker.ts'
import { type Delivered, headerText, type Outgoing, type RecordPosition } from '../../common/messages/message.ts'
import { topics } from '../../common/messages/topics.ts'
import type { ServiceName } from '../../common/name.ts'
import { dieAt as dieHere, type Point, type Trouble } from './orders.ts'
import type { Random } from './random.ts'
import type { Safeguard } from './safeguards.ts'

const REMEMBERED = 200
/** Without its safeguard, a step that should be done first is done so much later. */
const LATE_MS = 400
/** Of a payout. */
const LAST_STEP = 'settled'

/** What each service publishes on an operation's way. */
const published: Readonly<Record<ServiceName, string | undefined>> = {
  gateway: topics.requests,
  processor: topics.results,
  monitor: undefined,
}

/**
 * Wraps the broker of a service. It does what the port allows: duplicates, redeliveries, another order between keys. It
 * kills the process between two steps. Where a safeguard is taken out, it breaks the promise that the safeguard keeps.
 */
export function makeFaulty(
  broker: Broker,
  options: {
    readonly service: ServiceName
    readonly trouble: Trouble
    readonly random: Random
    readonly without: Safeguard | undefined
    /** Called with the operation of each request that is read wrongly. */
    readonly onMisread: (operation: string) => void
  },
): Broker {
  const { service, trouble, random, without, onMisread } = options
  /** Operations whose request was read wrongly or, without idempotency, performed. */
  const known = new Set<string>()
  let late: Promise<unknown> = Promise.resolve()
  const dieAt = (point: Point) => dieHere(trouble, point)

  /** Does the work later, in order, and may kill the process before it is done. */
  function doLater(work: () => Promise<unknown>, point: Point): void {
    late = late
      .then(() => sleep(LATE_MS))
      .then(work)
      .catch(() => {})
    setTimeout(() => dieAt(point), LATE_MS / 2)
  }

  async function publish(messages: readonly Outgoing[]): Promise<readonly RecordPosition[]> {
    const onTheWay = messages.some(({ topic }) => topic === published[service])
    if (onTheWay) dieAt('before-publish')
    if (messages.some(({ topic }) => topic === topics.deadLetters)) dieAt('before-dead-letter')
    const progress = messages.filter((message) => headerText(message, 'ce_type') === 'posta.operation.progressed')
    if (progress.length > 0) dieAt('before-progress')
    const sent = without === 'idempotency' ? messages.map(withOwnId) : messages
    if (without === 'outbox' && service === 'gateway') {
      // As if there were no outbox: it answers that the broker holds messages that are not sent yet.
      doLater(() => broker.publish(sent), 'after-publish')
      return sent.map(({ topic }) => ({ topic, partition: 0, offset: 0 }))
    }
    const positions = await broker.publish(sent)
    if (trouble.duplicates) await broker.publish(sent.filter(() => random.chance(0.5)))
    if (onTheWay) dieAt('after-publish')
    if (progress.some((message) => dataOf(message).step === LAST_STEP)) dieAt('before-result')
    return positions
  }

  function around(handle: BatchHandler): BatchHandler {
    const earlier = new Map<string, Delivered[]>()
    return async (batch) => {
      const messages = batch.messages.map(look)
      dieAt('handling')
      if (without === 'offset-order' && service === 'processor') {
        doLater(() => handle({ ...batch, messages }), 'before-offset')
        return undefined
      }
      let result = await handle({ ...batch, messages: trouble.otherOrder ? mixKeys(messages) : messages })
      const partition = `${batch.topic}/${batch.partition}`
      const before = earlier.get(partition) ?? []
      if (trouble.duplicates && random.chance(0.5)) {
        const again = before.slice(random.integer(0, before.length))
        result = await handle({ ...batch, messages: [...again, ...batch.messages].map(look) })
      }
      earlier.set(partition, [...before, ...batch.messages].slice(-REMEMBERED))
      dieAt('before-offset')
      return result
    }
  }

  /** One key after the other, in random order. The batch's last message stays the last. */
  function mixKeys(messages: readonly Delivered[]): Delivered[] {
    const byKey = Map.groupBy(messages, keyOf)
    const lastKeys = messages.slice(-1).map(keyOf)
    const others = [...byKey.keys()].filter((key) => !lastKeys.includes(key))
    return [...random.shuffle(others), ...lastKeys].flatMap((key) => byKey.get(key) ?? [])
  }

  function look(message: Delivered): Delivered {
    const operation = service === 'processor' ? operationOf(message) : undefined
    if (operation === undefined) return message
    const isKnown = known.has(operation)
    if (without === 'idempotency') {
      // Each later delivery is another operation to processor's store.
      known.add(operation)
      return isKnown ? withOperation(message, `${operation}~${Bun.randomUUIDv7()}`) : message
    }
    if (isKnown || trouble.misread === 0) return message
    known.add(operation)
    trouble.misread -= 1
    onMisread(operation)
    return misread(message)
  }

  return {
    publish,
    subscribe: (group, to, handle) => broker.subscribe(group, to, around(handle)),
    ping: broker.ping,
    close: broker.close,
  }
}

/** The message with a value that is damaged when it is first read, as by bad memory, and whole afterwards. */
function misread(message: Delivered): Delivered {
  const damaged = Buffer.from(JSON.stringify({ ...dataOf(message), input: { amount: 'damaged' } }))
  let reads = 0
  return {
    ...message,
    get value() {
      reads += 1
      return reads === 1 ? damaged : message.value
    },
  }
}

function keyOf({ key }: Delivered): string {
  return Buffer.from(key ?? []).toString('latin1')
}

function dataOf({ value }: { readonly value: Uint8Array | null }): Record<string, unknown> {
  try {
    const data: unknown = JSON.parse(Buffer.from(value ?? []).toString())
    return typeof data === 'object' && data !== null ? { ...data } : {}
  } catch {
    return {}
  }
}

/** Of a request; cancels and answers are none. */
function operationOf(message: Delivered): string | undefined {
  const { operation } = dataOf(message)
  const isRequest = headerText(message, 'ce_type') === 'posta.operation.requested'
  return isRequest && typeof operation === 'string' ? operation : undefined
}

function withOperation<Message extends Outgoing | Delivered>(message: Message, operation: string): Message {
  return { ...message, value: Buffer.from(JSON.stringify({ ...dataOf(message), operation })) }
}

/** Replaces an id that `look` made by the one that clients know. */
function withOwnId(message: Outgoing): Outgoing {
  const { operation } = dataOf(message)
  if (typeof operation !== 'string' || !operation.includes('~')) return message
  const headers = message.headers.map(([name, value]) => {
    const text = Buffer.from(value).toString()
    return [name, Buffer.from(text.replace(/~[\da-f-]{36}/, ''))] as const
  })
  return { ...withOperation(message, operation.replace(/~.*/, '')), headers }
}
