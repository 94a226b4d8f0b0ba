import type { Registry } from 'prom-client'
import type { Broker } from '../broker/broker.ts'
import type { Delivered } from '../messages/message.ts'
import type { Group, Topic } from '../messages/topics.ts'
import type { Clock } from '../service/clock.ts'
import type { Logger } from '../service/log.ts'

/** What became of a message. A reason is a sentence for operators, without a secret. */
export type Verdict = { readonly done: true } | { readonly retry: string } | { readonly dead: string }

/** A message, and what was read from it. */
export interface Received<Item> {
  readonly item: Item
  readonly message: Delivered
}

/** What a service does with the messages of its topics. */
export interface Handler<Item> {
  /** Reads one message. Never throws. */
  read(message: Delivered): { readonly item: Item } | { readonly unreadable: string }
  /**
   * Handles messages of one partition, in order. Resolves with a verdict on each: `done` once its effects are durable,
   * `retry` to have it handled again, `dead` to make it a dead letter. Where order matters, the verdict on what follows a
   * `retry` or a `dead` of its key must be `retry`: it is handled after that one. A throw means that the broker or a store
   * fails: all are handled again, after a pause, for as long as it takes.
   */
  handle(received: readonly Received<Item>[], signal: AbortSignal): Promise<readonly Verdict[]>
  /**
   * Called after a readable message became a dead letter. Must be idempotent: a crash redelivers, and after a throw it is
   * called again.
   */
  onDead?(received: Received<Item>, reason: string): Promise<void>
}

export interface ConsumeOptions<Item> extends Handler<Item> {
  /** The component's name, which health shows. */
  readonly name: string
  readonly broker: Pick<Broker, 'publish' | 'subscribe'>
  readonly group: Group
  readonly topics: readonly Topic[]
  readonly log: Logger
  /** A registry takes the metrics of one consumer. */
  readonly metrics: Registry
  readonly deps: Clock
  /** The first pause before something is tried again; the next ones grow. */
  readonly firstPauseMs?: number
}
