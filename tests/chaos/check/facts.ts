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
  /** When its client sent it first, by the client's clock. */
  sentMs(operation: OperationRow): number
  /** Whether a message of that time may have gone with its topic when that was deleted, unread by someone. */
  lostWith(topic: string, atMs: number): boolean
  /**
   * Whether a reader may have passed the message over: its topic was deleted after it, or was made anew so that it now
   * lies at an offset which the reader had behind it on the old one.
   */
  mayBeUnread(message: Message): boolean
  /** Whether a topic was deleted while the operation was under way: then it is sent, and performed, later than its turn. */
  delayed(id: string): boolean
}

/** What was published shortly before a topic was deleted may have come to lie on the new one, or on none. */
const AROUND_MS = 10_000
const MAX_GENERATIONS = 1000

export function factsOf(snapshot: Snapshot): Facts {
  const orders = ordersOf(snapshot.history)
  const seen = snapshot.history.filter((entry) => entry.kind === 'seen')
  const seenOf = Map.groupBy(seen, ({ id }) => id)
  const operationOf = new Map(snapshot.operations.map((operation) => [operation.id, operation]))
  const byOperation = (topic: string, isOurs: (type: string) => boolean) =>
    Map.groupBy(
      snapshot.messages.filter(({ topic: its, type, operation }) => {
        return its === topic && operation !== undefined && type !== undefined && isOurs(type)
      }),
      ({ operation }) => operation ?? '',
    )
  const requests = byOperation(topics.requests, (type) => type === 'posta.operation.requested')
  const orderByKey = new Map(orders.map((order) => [`${order.user} ${order.key}`, order]))
  const sentMs = ({ user, key, createdAtMs }: OperationRow) =>
    orderByKey.get(`${user} ${key}`)?.firstSentMs ?? createdAtMs
  const mayBeUnread = unreadable(snapshot.messages)
  const lostWith = (topic: string, atMs: number) =>
    snapshot.remade.some((remade) => remade.topic === topic && atMs < remade.atMs + AROUND_MS)
  return {
    ...snapshot,
    orders,
    orderOf: new Map(
      orders.flatMap((order) => order.acknowledged.map(({ operation }) => [operation.id, order] as const)),
    ),
    seen: seenOf,
    resultOf: new Map(snapshot.results.map((result) => [result.id, result])),
    operationOf,
    eventsOf: Map.groupBy(snapshot.events, ({ id }) => id),
    requests,
    replies: byOperation(topics.results, (type) => /^posta\.operation\.(?:succeeded|failed)$/.test(type)),
    sentMs,
    lostWith,
    mayBeUnread,
    delayed(id) {
      const operation = operationOf.get(id)
      if (!operation) return false
      const terminalMs = seenOf.get(id)?.find((entry) => entry.operation && entry.operation.status !== 'pending')?.atMs
      const [first, again] = requests.get(id) ?? []
      if (first && again && mayBeUnread(first)) return true
      return snapshot.remade.some(
        ({ atMs }) =>
          sentMs(operation) < atMs + AROUND_MS && !(terminalMs !== undefined && terminalMs < atMs - AROUND_MS),
      )
    },
  }
}

/** See `mayBeUnread`. Messages are in the order of topic and generation. */
function unreadable(messages: readonly Message[]): (message: Message) => boolean {
  const last = new Map<string, number>()
  /** By partition of a generation: the first offset that nobody can have had behind him on an earlier one. */
  const ends = new Map<string, number>()
  for (const { topic, generation, partition, offset } of messages) {
    last.set(topic, Math.max(generation, last.get(topic) ?? 0))
    for (let later = generation + 1; later <= MAX_GENERATIONS; later++) {
      const name = `${topic}/${partition}/${later}`
      ends.set(name, Math.max(offset + 1, ends.get(name) ?? 0))
    }
  }
  return ({ topic, generation, partition, offset }) =>
    generation < (last.get(topic) ?? 0) || offset < (ends.get(`${topic}/${partition}/${generation}`) ?? 0)
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
