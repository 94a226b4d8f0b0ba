import { topics } from '../../../common/messages/topics.ts'
import type { Entry, SeenOperation } from '../history.ts'
import type { EventRow, Message, OperationRow, ResultRow, Snapshot } from '../snapshot.ts'

/** What one client knows of one key: all that was sent under it, and what came of it. */
export interface Order {
  readonly user: string
  readonly key: string
  readonly firstSentMs: number
  readonly inputs: readonly {
    readonly attempt: number
    readonly type: string
    readonly input: Record<string, string>
  }[]
  readonly acknowledged: readonly {
    readonly attempt: number
    readonly atMs: number
    readonly operation: SeenOperation
  }[]
  /** Whether every attempt was answered, by a refusal. */
  readonly refused: boolean
}

/** The snapshot, looked up by what the rules ask for. */
export interface Facts extends Snapshot {
  readonly orders: readonly Order[]
  readonly orderOf: ReadonlyMap<string, Order>
  readonly seen: ReadonlyMap<string, readonly Extract<Entry, { kind: 'seen' }>[]>
  readonly resultOf: ReadonlyMap<string, ResultRow>
  readonly operationOf: ReadonlyMap<string, OperationRow>
  readonly eventsOf: ReadonlyMap<string, readonly EventRow[]>
  /** By operation, in the order of the topic. */
  readonly requests: ReadonlyMap<string, readonly Message[]>
  readonly replies: ReadonlyMap<string, readonly Message[]>
  /** Whether what was on the topic at that time may have gone with it when it was deleted. */
  lostWith(topic: string, atMs: number): boolean
}

/** What was published shortly before a topic was deleted may have come to lie on the new one, or on none. */
const AROUND_MS = 10_000

export function factsOf(snapshot: Snapshot): Facts {
  const orders = ordersOf(snapshot.history)
  const seen = snapshot.history.filter((entry) => entry.kind === 'seen')
  const byOperation = (topic: string, isOurs: (type: string) => boolean) =>
    Map.groupBy(
      snapshot.messages.filter(({ topic: its, type, operation }) => {
        return its === topic && operation !== undefined && type !== undefined && isOurs(type)
      }),
      ({ operation }) => operation ?? '',
    )
  return {
    ...snapshot,
    orders,
    orderOf: new Map(
      orders.flatMap((order) => order.acknowledged.map(({ operation }) => [operation.id, order] as const)),
    ),
    seen: Map.groupBy(seen, ({ id }) => id),
    resultOf: new Map(snapshot.results.map((result) => [result.id, result])),
    operationOf: new Map(snapshot.operations.map((operation) => [operation.id, operation])),
    eventsOf: Map.groupBy(snapshot.events, ({ id }) => id),
    requests: byOperation(topics.requests, (type) => type === 'posta.operation.requested'),
    replies: byOperation(topics.results, (type) => /^posta\.operation\.(?:succeeded|failed)$/.test(type)),
    lostWith: (topic, atMs) =>
      snapshot.remade.some((remade) => remade.topic === topic && atMs < remade.atMs + AROUND_MS),
  }
}

function ordersOf(history: readonly Entry[]): Order[] {
  const attempts = history.filter(({ kind }) => kind === 'submit' || kind === 'answer' || kind === 'unknown')
  const byKey = Map.groupBy(attempts, (entry) => ('key' in entry ? `${entry.user} ${entry.key}` : ''))
  return [...byKey.values()].flatMap((entries) => {
    const submits = entries.filter((entry) => entry.kind === 'submit')
    const answers = entries.filter((entry) => entry.kind === 'answer')
    const [first] = submits
    if (!first) return []
    return {
      user: first.user,
      key: first.key,
      firstSentMs: Math.min(...submits.map(({ atMs }) => atMs)),
      inputs: submits,
      acknowledged: answers.flatMap(({ attempt, atMs, operation }) =>
        operation ? [{ attempt, atMs, operation }] : [],
      ),
      refused: answers.length === submits.length && answers.every(({ operation }) => !operation),
    }
  })
}

/** Where a message lies among all of its topic and partition. */
export function isBefore(a: Message, b: Message): boolean {
  return a.generation !== b.generation ? a.generation < b.generation : a.offset < b.offset
}

/** A failure that a redrive may turn into something better. */
export function isDeadLettered(outcome: { status: string; errorCode?: string | null | undefined }): boolean {
  return outcome.status === 'failed' && outcome.errorCode === 'dead-lettered'
}
