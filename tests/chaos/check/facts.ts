import { topics } from '../../../common/messages/topics.ts'
import type { Entry } from '../history.ts'
import type { EventRow, Message, OperationRow, ResultRow, RunRow, Snapshot } from '../snapshot.ts'

type EntryOf<Kind extends Entry['kind']> = Extract<Entry, { kind: Kind }>
type Answer = EntryOf<'answer'>

/** Everything that a client sent under one key, and what it was answered. */
export interface Submission {
  readonly user: string
  readonly key: string
  readonly firstSentMs: number
  readonly sent: readonly EntryOf<'submit'>[]
  readonly acknowledged: readonly (Answer & { readonly operation: NonNullable<Answer['operation']> })[]
  /** Whether every attempt was answered by a refusal. */
  readonly refused: boolean
}

/** The snapshot, with what the rules look up. Maps have the operation's id as key, unless they say otherwise. */
export interface Facts extends Snapshot {
  readonly submissions: readonly Submission[]
  readonly submissionOf: ReadonlyMap<string, Submission>
  readonly seen: ReadonlyMap<string, readonly EntryOf<'seen'>[]>
  readonly resultOf: ReadonlyMap<string, ResultRow>
  readonly operationOf: ReadonlyMap<string, OperationRow>
  readonly runOf: ReadonlyMap<string, RunRow>
  /** What clients and operators told operations. */
  readonly tellsOf: ReadonlyMap<string, readonly EntryOf<'tell'>[]>
  readonly operators: ReadonlySet<string>
  /** By the event's id. */
  readonly eventsOf: ReadonlyMap<string, readonly EventRow[]>
  /** In the order of the topic. */
  readonly requests: ReadonlyMap<string, readonly Message[]>
  readonly replies: ReadonlyMap<string, readonly Message[]>
  readonly progressOf: ReadonlyMap<string, readonly Message[]>
  /** When its client sent it first, by the client's clock. */
  sentMs(operation: OperationRow): number
  /** When a client first saw it terminal. */
  terminalMs(id: string): number | undefined
  /** Whether a message of that time may have been deleted with its topic before everyone had read it. */
  mayBeDeleted(topic: string, atMs: number): boolean
  /**
   * Whether a reader may have skipped the message: its topic was deleted after it, or was created again, and it now has
   * an offset that the reader had passed on the old topic.
   */
  mayBeSkipped(message: Message): boolean
  /** Whether a topic was deleted while the operation was under way, so that it may be performed after later ones. */
  isDelayed(id: string): boolean
}

/** What was published shortly before or after a topic was deleted may be on the old one, on the new one, or on none. */
const AROUND_MS = 10_000

export function factsOf(snapshot: Snapshot): Facts {
  const { history, operations, results, runs, events, messages, recreated } = snapshot
  const submissions = submissionsOf(history)
  const submissionByKey = new Map(submissions.map((each) => [`${each.user} ${each.key}`, each]))
  const seen = Map.groupBy(
    history.filter((entry) => entry.kind === 'seen'),
    ({ id }) => id,
  )
  const operationOf = new Map(operations.map((operation) => [operation.id, operation]))
  const messagesOf = (topic: string, types: RegExp) =>
    Map.groupBy(
      messages.filter((each) => each.topic === topic && each.operation !== undefined && types.test(each.type ?? '')),
      ({ operation }) => operation ?? '',
    )
  const requests = messagesOf(topics.requests, /^posta\.operation\.requested$/)
  const sentMs = ({ user, key, createdAtMs }: OperationRow) =>
    submissionByKey.get(`${user} ${key}`)?.firstSentMs ?? createdAtMs
  const terminalMs = (id: string) =>
    seen.get(id)?.find(({ operation }) => operation && operation.status !== 'pending')?.atMs
  const mayBeSkipped = skippable(messages)
  return {
    ...snapshot,
    submissions,
    submissionOf: new Map(
      submissions.flatMap((each) => each.acknowledged.map(({ operation }) => [operation.id, each] as const)),
    ),
    seen,
    resultOf: new Map(results.map((result) => [result.id, result])),
    operationOf,
    runOf: new Map(runs.map((run) => [run.id, run])),
    tellsOf: Map.groupBy(
      history.filter((entry) => entry.kind === 'tell'),
      ({ id }) => id,
    ),
    operators: new Set(history.flatMap((entry) => (entry.kind === 'operator' ? entry.user : []))),
    eventsOf: Map.groupBy(events, ({ id }) => id),
    requests,
    replies: messagesOf(topics.results, /^posta\.operation\.(?:succeeded|failed)$/),
    progressOf: messagesOf(topics.results, /^posta\.operation\.progressed$/),
    sentMs,
    terminalMs,
    mayBeDeleted: (topic, atMs) => recreated.some((each) => each.topic === topic && atMs < each.atMs + AROUND_MS),
    mayBeSkipped,
    isDelayed(id) {
      const operation = operationOf.get(id)
      if (!operation) return false
      const [first, again] = requests.get(id) ?? []
      if (first && again && mayBeSkipped(first)) return true
      const doneMs = terminalMs(id) ?? Number.POSITIVE_INFINITY
      return recreated.some(({ atMs }) => sentMs(operation) < atMs + AROUND_MS && doneMs >= atMs - AROUND_MS)
    },
  }
}

/** Makes `mayBeSkipped`. */
function skippable(messages: readonly Message[]): Facts['mayBeSkipped'] {
  const newest = new Map<string, number>()
  for (const { topic, generation } of messages) newest.set(topic, Math.max(generation, newest.get(topic) ?? 0))
  /** By partition of a generation: the first offset that no reader can have passed on an earlier generation. */
  const ends = new Map<string, number>()
  for (const { topic, generation, partition, offset } of messages)
    for (let later = generation + 1; later <= (newest.get(topic) ?? 0); later++) {
      const name = `${topic}/${partition}/${later}`
      ends.set(name, Math.max(offset + 1, ends.get(name) ?? 0))
    }
  return ({ topic, generation, partition, offset }) =>
    generation < (newest.get(topic) ?? 0) || offset < (ends.get(`${topic}/${partition}/${generation}`) ?? 0)
}

function submissionsOf(history: readonly Entry[]): Submission[] {
  const attempts = history.filter((entry) => 'key' in entry)
  return [...Map.groupBy(attempts, ({ user, key }) => `${user} ${key}`).values()].flatMap((entries) => {
    const sent = entries.filter((entry) => entry.kind === 'submit')
    const answers = entries.filter((entry) => entry.kind === 'answer')
    const [first] = sent
    if (!first) return []
    return {
      user: first.user,
      key: first.key,
      firstSentMs: Math.min(...sent.map(({ atMs }) => atMs)),
      sent,
      acknowledged: answers.flatMap(({ operation, ...answer }) => (operation ? [{ ...answer, operation }] : [])),
      refused: answers.length === sent.length && answers.every(({ operation }) => !operation),
    }
  })
}

/** Whether a message comes before another one of its topic and partition. */
export function isBefore(a: Message, b: Message): boolean {
  return a.generation !== b.generation ? a.generation < b.generation : a.offset < b.offset
}
