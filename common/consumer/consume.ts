import { setTimeout as sleep } from 'node:timers/promises'
import { Counter, Gauge, type Registry } from 'prom-client'
import type { Batch, Broker, Subscription } from '../broker/broker.ts'
import { deadLetterId, encodeDeadLetter } from '../messages/dead-letter.ts'
import { encode } from '../messages/envelope.ts'
import { type Delivered, headerText } from '../messages/message.ts'
import { type Group, type Topic, topics } from '../messages/topics.ts'
import type { Component } from '../service/component.ts'
import { ConfigError } from '../service/config.ts'
import type { Deps } from '../service/deps.ts'
import type { Logger } from '../service/log.ts'

/** What a handler says of one message. A reason is a sentence for operators, without a secret. */
export type Verdict = { readonly done: true } | { readonly retry: string } | { readonly dead: string }

export interface Received<Item> {
  readonly item: Item
  readonly message: Delivered
}

export interface Consumer<Item> {
  readonly broker: Broker
  readonly group: Group
  readonly topics: readonly Topic[]
  /** What a message says. Never throws. */
  read(message: Delivered): { readonly item: Item } | { readonly unreadable: string }
  /**
   * Handles messages of one partition, in order, and says of each what became of it. After a `retry` no later message of
   * the same key may be done: it comes again with the one before it. A throw means trouble of the broker or a store: the
   * same messages come again after a pause, for as long as it takes. Where order matters a message behind a `dead` one of
   * its key is a `retry`: it comes again once that one is set aside.
   */
  handle(received: readonly Received<Item>[], signal: AbortSignal): Promise<readonly Verdict[]>
  /**
   * Runs, durably, once a message that could be read lies among the dead letters: whatever it says of the message, an
   * operator finds that one. A crash before it is over brings the message again. A throw is trouble as above.
   */
  onDead?(received: Received<Item>, reason: string): Promise<void>
  readonly log: Logger
  readonly metrics: Registry
  readonly deps: Pick<Deps, 'monotonicMs' | 'now'>
  /** The pause before the second attempt at a message; each next one is four times as long. */
  readonly firstPauseMs?: number
}

const MAX_ATTEMPTS = 5
const MAX_RETRY_MS = 10_000
const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 2000
/** So many messages of a partition may wait behind keys that are being retried; then the partition waits. */
const MAX_HELD = 1000

interface Partition<Item> {
  readonly signal: AbortSignal
  /** By key: the message that is being retried, and those behind it. */
  readonly held: Map<string, Received<Item>[]>
  /** The offset after the last batch that was handled. */
  handledTo: number
}

interface Dead<Item> {
  readonly message: Delivered
  readonly reason: string
  readonly received?: Received<Item>
}

/**
 * Subscribes a handler, with what every handler needs around it: reading, retry that holds one key alone, dead letters,
 * pauses on trouble.
 *
 * A message that asks for a retry is tried at most 5 times within 10 s; later messages of its key wait behind it, those
 * of other keys go on. The group's offset stays before the oldest that waits. After that, or at once where the verdict
 * is `dead` or the message unreadable, it goes to the topic of dead letters, together with the event that says so.
 *
 * The broker need not be there yet: the subscription is `recovering` until it is made.
 */
export function consume<Item>(consumer: Consumer<Item>): Subscription {
  const { broker, group, log, deps, firstPauseMs = FIRST_PAUSE_MS } = consumer
  const deadLetters = consumerCounter(
    consumer.metrics,
    'posta_dead_letters_total',
    'Messages set aside as dead letters.',
  )
  const retries = consumerCounter(
    consumer.metrics,
    'posta_message_retries_total',
    'Attempts at a message after the first.',
  )
  // A counter that begins with its first increment hides that one from whoever watches for increases.
  for (const topic of consumer.topics) for (const counter of [deadLetters, retries]) counter.inc({ group, topic }, 0)
  const partitions = new Map<string, Partition<Item>>()
  let troubles = 0

  async function handleBatch(batch: Batch): Promise<{ heldFrom: number } | undefined> {
    const partition = partitionOf(batch)
    const free: Received<Item>[] = []
    const dead: Dead<Item>[] = []
    for (const message of batch.messages) {
      const read = consumer.read(message)
      if ('unreadable' in read) {
        dead.push({ message, reason: read.unreadable })
        continue
      }
      const received = { item: read.item, message }
      const before = partition.held.get(keyOf(message))
      if (before) before.push(received)
      else free.push(received)
    }
    const verdicts = await handleAll(free, batch.signal)
    const retries: (() => void)[] = []
    for (const [index, received] of free.entries()) {
      const verdict = verdicts[index] ?? { retry: 'The handler said nothing of it.' }
      const before = partition.held.get(keyOf(received.message))
      if (before) before.push(received)
      else if ('retry' in verdict) retries.push(hold(batch, partition, received, verdict.retry))
      else if ('dead' in verdict) dead.push({ message: received.message, reason: verdict.dead, received })
    }
    await setAside(dead, batch.signal)
    // Only now: what waits behind a dead message of its key comes after that one.
    for (const begin of retries) begin()
    while (countHeld(partition) > MAX_HELD) await sleep(FIRST_PAUSE_MS, undefined, { signal: batch.signal })
    partition.handledTo = (batch.messages.at(-1)?.offset ?? -1) + 1
    const heldFrom = firstHeld(partition)
    return heldFrom === undefined ? undefined : { heldFrom }
  }

  /** What is known of a partition is of one assignment: after a loss everything undone is delivered anew. */
  function partitionOf(batch: Batch): Partition<Item> {
    const name = `${batch.topic}/${batch.partition}`
    const known = partitions.get(name)
    if (known && known.signal === batch.signal) return known
    const partition = { signal: batch.signal, held: new Map(), handledTo: 0 }
    partitions.set(name, partition)
    return partition
  }

  async function handleAll(received: readonly Received<Item>[], signal: AbortSignal): Promise<readonly Verdict[]> {
    if (received.length === 0) return []
    return untilItWorks(() => consumer.handle(received, signal), signal)
  }

  /** Holds the message's key from now on. The function that is returned begins with the retries. */
  function hold(batch: Batch, partition: Partition<Item>, received: Received<Item>, reason: string): () => void {
    const key = keyOf(received.message)
    const waiting = [received]
    partition.held.set(key, waiting)
    return () =>
      void retry(waiting, reason, () => partition.held.delete(key), batch.signal)
        .then(() => batch.commit(firstHeld(partition) ?? partition.handledTo))
        .catch((error: unknown) => {
          // The partition is lost, or the offset could not be moved now: the next batch moves it, or all comes again.
          if (!batch.signal.aborted) log.warn({ err: error, group }, 'an offset could not be moved yet')
        })
  }

  /** Goes through what waits at a key, one after the other. `release` runs in the very step that finds nothing left. */
  async function retry(
    waiting: Received<Item>[],
    firstReason: string,
    release: () => void,
    signal: AbortSignal,
  ): Promise<void> {
    let reason: string | undefined = firstReason
    let attempts = 1
    let sinceMs = deps.monotonicMs()
    for (let received = waiting[0]; received; received = waiting[0]) {
      let verdict: Verdict | undefined
      if (reason !== undefined && (attempts >= MAX_ATTEMPTS || deps.monotonicMs() - sinceMs >= MAX_RETRY_MS)) {
        verdict = { dead: `${reason} (given up after ${attempts} attempts)` }
      } else {
        if (reason !== undefined) {
          await sleep(firstPauseMs * 4 ** (attempts - 1), undefined, { signal })
          retries.inc({ group, topic: received.message.topic })
        }
        verdict = (await handleAll([received], signal))[0]
        attempts = reason === undefined ? 1 : attempts + 1
      }
      if (verdict && 'retry' in verdict) {
        if (reason === undefined) sinceMs = deps.monotonicMs()
        reason = verdict.retry
        continue
      }
      if (verdict && 'dead' in verdict)
        await setAside([{ message: received.message, reason: verdict.dead, received }], signal)
      waiting.shift()
      reason = undefined
    }
    release()
  }

  async function setAside(dead: readonly Dead<Item>[], signal: AbortSignal): Promise<void> {
    if (dead.length === 0) return
    await untilItWorks(async () => {
      await broker.publish(
        dead.flatMap(({ message, reason }) => [
          encodeDeadLetter(message, group, reason),
          deadLettered(message, group, reason, deps.now()),
        ]),
      )
      for (const { received, reason } of dead) if (received) await consumer.onDead?.(received, reason)
    }, signal)
    for (const { message, reason } of dead) {
      deadLetters.inc({ group, topic: message.topic })
      log.warn({ group, deadLetter: deadLetterId(message), reason }, 'a message was set aside as a dead letter')
    }
  }

  /** Repeats `work` until it does not throw, with growing pauses. @throws once the partition is lost. */
  async function untilItWorks<Result>(work: () => Promise<Result>, signal: AbortSignal): Promise<Result> {
    let pauseMs = firstPauseMs
    let troubled = false
    try {
      for (;;) {
        signal.throwIfAborted()
        try {
          return await work()
        } catch (error) {
          if (!troubled) troubles++
          troubled = true
          log.warn({ err: error, group, pauseMs }, 'trouble: the partition waits')
          await sleep(pauseMs, undefined, { signal })
          pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)
        }
      }
    } finally {
      if (troubled) troubles--
    }
  }

  const subscription = persistent(
    () => broker.subscribe(group, consumer.topics, handleBatch),
    () => troubles > 0,
    log.child({ group }),
  )
  showLag(consumer.metrics, group, subscription)
  return subscription
}

/** A subscription that does not need the broker to be there yet: it is made as soon as it can be. */
function persistent(subscribe: () => Promise<Subscription>, isTroubled: () => boolean, log: Logger): Subscription {
  const closing = new AbortController()
  let subscription: Subscription | undefined

  async function run(): Promise<void> {
    for (let pauseMs = FIRST_PAUSE_MS; !closing.signal.aborted; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
      try {
        subscription = await subscribe()
        if (closing.signal.aborted) await subscription.close()
        return await subscription.ended
      } catch (error) {
        if (subscription || error instanceof ConfigError) throw error
        log.warn({ err: error, pauseMs }, 'the subscription cannot be made yet')
        await sleep(pauseMs, undefined, { signal: closing.signal }).catch(() => {})
      }
    }
  }

  const ended = run()
  let failed = false
  ended.catch(() => {
    failed = true
  })
  return {
    ended,
    state() {
      if (failed) return 'failed'
      const state = subscription?.state() ?? 'recovering'
      return state === 'running' && isTroubled() ? 'recovering' : state
    },
    lag: () => subscription?.lag() ?? [],
    async close(graceMs) {
      closing.abort()
      if (subscription) await subscription.close(graceMs)
      else await ended
    },
  }
}

/** A consumer as a part of its service, and as a part of the service's health. */
export function consumerComponent(name: string, start: () => Subscription): Component {
  const ended = Promise.withResolvers<void>()
  let subscription: Subscription | undefined
  return {
    name,
    ended: ended.promise,
    async start() {
      subscription = start()
      subscription.ended.then(ended.resolve, ended.reject)
    },
    check() {
      if (subscription?.state() !== 'running')
        throw new Error(`The consumer of ${name} is ${subscription?.state() ?? 'not started'}.`)
    },
    async close(graceMs) {
      await subscription?.close(graceMs)
    },
  }
}

/** A message without a key has no order to keep: it is a key of its own. */
function keyOf(message: Delivered): string {
  return message.key ? Buffer.from(message.key).toString('latin1') : `/${message.offset}`
}

function countHeld(partition: Partition<unknown>): number {
  let count = 0
  for (const waiting of partition.held.values()) count += waiting.length
  return count
}

function firstHeld(partition: Partition<unknown>): number | undefined {
  const offsets = [...partition.held.values()].flatMap(([first]) => (first ? [first.message.offset] : []))
  return offsets.length > 0 ? Math.min(...offsets) : undefined
}

/** The event of a dead letter. Its id follows from the message's place, so that it is stored once. */
function deadLettered(message: Delivered, group: Group, reason: string, nowMs: number) {
  const deadLetter = deadLetterId(message)
  const { topic, partition, offset } = message
  // The key of a request or a result is the user's id; elsewhere it may be anything.
  const user = topic === topics.requests || topic === topics.results ? shortText(message.key) : undefined
  return encode({
    id: `${deadLetter}.dead-lettered`,
    type: 'posta.message.dead-lettered',
    time: new Date(nowMs).toISOString(),
    subject: shortText(headerText(message, 'ce_subject')),
    data: { user, deadLetter, group, topic, partition, offset, reason: reason.slice(0, 2000) },
  })
}

function shortText(value: Uint8Array | string | null | undefined): string | undefined {
  const text = value == null ? '' : Buffer.from(value).toString('utf8')
  return text.length > 0 && text.length <= 256 ? text : undefined
}

/** Several consumers of one service share the counter. */
function consumerCounter(registry: Registry, name: string, help: string): Counter<'group' | 'topic'> {
  const known = registry.getSingleMetric(name)
  if (known instanceof Counter) return known
  return new Counter({ name, help, labelNames: ['group', 'topic'], registers: [registry] })
}

const shownLags = new WeakMap<Registry, [Group, Subscription][]>()

/** A handler that is slow or stands still shows here: what it has not taken waits at the broker, not in memory. */
function showLag(registry: Registry, group: Group, subscription: Subscription): void {
  const shown = shownLags.get(registry) ?? []
  shown.push([group, subscription])
  if (shownLags.has(registry)) return
  shownLags.set(registry, shown)
  new Gauge({
    name: 'posta_consumer_lag',
    help: "Messages that this member's partitions hold beyond the group's offset.",
    labelNames: ['topic', 'partition', 'group'],
    registers: [registry],
    collect() {
      this.reset()
      for (const [group, subscription] of shown)
        for (const { topic, partition, lag } of subscription.lag()) this.set({ topic, partition, group }, lag)
    },
  })
}
