import * as v from 'valibot'
import { topics } from '../../../common/messages/topics.ts'
import type { EventRow } from '../snapshot.ts'
import type { Facts } from './facts.ts'
import { type Violation, violation } from './violation.ts'

/** The audit has whole chains and every message once, and what could not be handled is among the dead letters. */
export function* checkEvents(facts: Facts): Generator<Violation> {
  for (const events of Map.groupBy(facts.events, ({ chain }) => chain).values()) yield* checkChain(events)
  for (const [id, events] of facts.eventsOf)
    if (events.length > 1) yield violation('event twice', id, events.map(({ chain }) => chain).join(', '))
  yield* checkMessages(facts)
  yield* checkOperations(facts)
  yield* checkPoison(facts)
  yield* checkDeadLetters(facts)
}

const Text = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({ headers: v.array(v.tuple([v.string(), v.unknown()])), topic: v.string(), partition: v.number() }),
)

function* checkChain(events: readonly EventRow[]): Generator<Violation> {
  let before = { seq: 0, hash: '0'.repeat(64) }
  for (const event of events.toSorted((a, b) => a.seq - b.seq)) {
    const { id, chain, seq, previousHash, hash, text } = event
    const broken = (detail: string) => violation('chain broken', `${chain} ${seq}`, detail)
    if (seq !== before.seq + 1) yield broken(`after ${before.seq}`)
    else if (previousHash !== before.hash) yield broken('another hash before it')
    if (hash !== hashOf(event)) yield broken('another hash')
    const read = v.safeParse(Text, text)
    const idInText = read.success ? read.output.headers.findLast(([name]) => name === 'ce_id')?.[1] : undefined
    const chainInText = read.success ? `${read.output.topic}/${read.output.partition}` : undefined
    if (idInText !== id || chainInText !== chain) yield broken('its text says otherwise')
    before = event
  }
}

/** What the hash of an event must be. */
export function hashOf({
  chain,
  seq,
  previousHash,
  text,
}: Omit<EventRow, 'id' | 'type' | 'operation' | 'hash'>): string {
  const hashed = ['posta audit chain 1', chain, seq, previousHash, text].join('\n')
  return new Bun.CryptoHasher('sha256').update(hashed).digest('hex')
}

function* checkMessages(facts: Facts): Generator<Violation> {
  const onTopics = new Set<string>()
  for (const message of facts.messages) {
    const { topic, type, id, value } = message
    if (topic === topics.deadLetters || type === undefined || id === undefined) continue
    onTopics.add(id)
    const isPoison = facts.poison.some(({ mark }) => value.includes(mark))
    if (!facts.eventsOf.has(id) && !facts.mayBeSkipped(message) && !isPoison)
      yield violation('event missing', id, `${type} on ${topic}`)
  }
  for (const { id, chain } of facts.events) {
    const isRecreated = facts.recreated.some(({ topic }) => chain.startsWith(`${topic}/`))
    if (!onTopics.has(id) && !isRecreated) yield violation('event without message', id, chain)
  }
}

function* checkOperations(facts: Facts): Generator<Violation> {
  const skipped = new Set(facts.messages.filter(facts.mayBeSkipped).map(({ id }) => id))
  for (const operation of facts.operations) {
    const { id, status } = operation
    const redrive = facts.resultOf.get(id)?.redrive
    const expected: [string, string][] = [[topics.requests, id]]
    // A redrive may be performed before the failure is answered: then its reply is the first one.
    if (redrive) expected.push([topics.results, `${id}.${redrive}`], [topics.events, redrive])
    else if (status !== 'pending') expected.push([topics.results, `${id}.result`])
    for (const [topic, event] of expected)
      if (!facts.eventsOf.has(event) && !skipped.has(event) && !facts.mayBeDeleted(topic, facts.sentMs(operation)))
        yield violation('event missing', event, `of an operation that ${status}`)
  }
}

function* checkPoison(facts: Facts): Generator<Violation> {
  for (const { mark, topic, atMs, acknowledged } of facts.poison) {
    const letters = facts.deadLetters.filter(({ preview }) => preview.includes(mark))
    const messages = facts.messages.filter((message) => message.topic === topic && message.value.includes(mark))
    const mayBeLost = facts.mayBeDeleted(topic, atMs) || messages.some(facts.mayBeSkipped)
    if (letters.length === 0 && (acknowledged || messages.length > 0) && !mayBeLost)
      yield violation('dead letter missing', mark, `published on ${topic}`)
    // A producer that gets no answer publishes again: then the message is on the topic more than once.
    if (letters.length > Math.max(1, messages.length))
      yield violation('dead letter twice', mark, letters.map(({ id }) => id).join(', '))
  }
}

function* checkDeadLetters(facts: Facts): Generator<Violation> {
  const operations = new Set(facts.deadLetters.map(({ operation }) => operation))
  for (const { id, operation, preview } of facts.deadLetters) {
    const n = recordOf(id)
    const isCaused =
      n === undefined
        ? facts.poison.some(({ mark }) => preview.includes(mark)) || facts.misread.includes(operation ?? '')
        : facts.runOf.get(operation ?? '')?.records.some((record) => record.n === n && record.kind === 'stuck')
    if (!isCaused) yield violation('dead letter without cause', id, `operation ${operation}`)
  }
  for (const { id, records } of facts.runs)
    for (const { n } of records.filter(({ kind }) => kind === 'stuck'))
      if (!facts.deadLetters.some((letter) => letter.operation === id && recordOf(letter.id) === n))
        yield violation('dead letter missing', id, `its run was stuck, record ${n}`)
  for (const { id, errorCode } of facts.operations)
    if (errorCode === 'dead-lettered' && !operations.has(id))
      yield violation('dead letter missing', id, 'an operation that failed by dead letter')
}

/** The number of the record that made a run stuck, at the end of its dead letter's id. Undefined for any other dead letter. */
export function recordOf(deadLetter: string): number | undefined {
  const [, n] = /^posta\.requests(?:\.\d+){3}\.(\d+)$/.exec(deadLetter) ?? []
  return n === undefined ? undefined : Number(n)
}
