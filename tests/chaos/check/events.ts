import * as v from 'valibot'
import { topics } from '../../../common/messages/topics.ts'
import type { EventRow } from '../snapshot.ts'
import type { Facts } from './facts.ts'
import type { Violation } from './violation.ts'

/** The audit: whole chains, every message once, and what nobody could handle among the dead letters. */
export function* checkEvents(facts: Facts): Generator<Violation> {
  for (const [, events] of Map.groupBy(facts.events, ({ chain }) => chain)) yield* checkChain(events)
  for (const [id, events] of facts.eventsOf)
    if (events.length > 1)
      yield { rule: 'event twice', subject: id, detail: events.map(({ chain }) => chain).join(', ') }
  yield* checkMessages(facts)
  yield* checkOperations(facts)
  yield* checkDeadLetters(facts)
}

const ZEROS = '0'.repeat(64)
const Text = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({ headers: v.array(v.tuple([v.string(), v.unknown()])), topic: v.string(), partition: v.number() }),
)

function* checkChain(events: readonly EventRow[]): Generator<Violation> {
  let before = { seq: 0, hash: ZEROS }
  for (const event of events.toSorted((a, b) => a.seq - b.seq)) {
    const { id, chain, seq, previousHash, text } = event
    const broken = (detail: string): Violation => ({ rule: 'chain broken', subject: `${chain} ${seq}`, detail })
    if (seq !== before.seq + 1) yield broken(`after ${before.seq}`)
    else if (previousHash !== before.hash) yield broken('another hash before it')
    const bytes = ['posta audit chain 1', chain, String(seq), previousHash, text].join('\n')
    if (event.hash !== new Bun.CryptoHasher('sha256').update(bytes).digest('hex')) yield broken('another hash')
    const read = v.safeParse(Text, text)
    const idInText = read.success ? read.output.headers.findLast(([name]) => name === 'ce_id')?.[1] : undefined
    const chainInText = read.success ? `${read.output.topic}/${read.output.partition}` : undefined
    if (idInText !== id || chainInText !== chain) yield broken('its text says otherwise')
    before = event
  }
}

function* checkMessages(facts: Facts): Generator<Violation> {
  const onTopics = new Set<string>()
  for (const message of facts.messages) {
    const { topic, type, id, value } = message
    if (topic === topics.deadLetters || type === undefined || id === undefined) continue
    onTopics.add(id)
    if (facts.eventsOf.has(id) || facts.mayBeUnread(message)) continue
    if (!facts.poison.some(({ mark }) => value.includes(mark)))
      yield { rule: 'event missing', subject: id, detail: `${type} on ${topic}` }
  }
  for (const { id, chain } of facts.events) {
    const remade = facts.remade.some(({ topic }) => chain.startsWith(`${topic}/`))
    if (!onTopics.has(id) && !remade) yield { rule: 'event of nothing', subject: id, detail: chain }
  }
}

function* checkOperations(facts: Facts): Generator<Violation> {
  const unread = new Set(facts.messages.flatMap((message) => (facts.mayBeUnread(message) ? (message.id ?? []) : [])))
  for (const operation of facts.operations) {
    const { id, status } = operation
    const redrive = facts.resultOf.get(id)?.redrive
    const expected: [string, string][] = [[topics.requests, id]]
    // A redrive may come before the failure was answered: then the first answer is the redrive's.
    if (redrive) expected.push([topics.results, `${id}.${redrive}`], [topics.events, redrive])
    else if (status !== 'pending') expected.push([topics.results, `${id}.result`])
    for (const [topic, event] of expected)
      if (!facts.eventsOf.has(event) && !unread.has(event) && !facts.lostWith(topic, facts.sentMs(operation)))
        yield { rule: 'event missing', subject: event, detail: `of an operation that ${status}` }
  }
}

function* checkDeadLetters(facts: Facts): Generator<Violation> {
  const explained = new Set<string>()
  for (const { mark, topic, atMs, acknowledged } of facts.poison) {
    const found = facts.deadLetters.filter(({ preview }) => preview.includes(mark))
    for (const { id } of found) explained.add(id)
    const put = facts.messages.filter((message) => message.topic === topic && message.value.includes(mark))
    const lost = facts.lostWith(topic, atMs) || put.some(facts.mayBeUnread)
    const isThere = acknowledged || put.length > 0
    if (found.length === 0 && isThere && !lost)
      yield { rule: 'dead letter missing', subject: mark, detail: `put on ${topic}` }
    // Its producer tries again where no answer comes: then it is on the topic more than once.
    if (found.length > Math.max(1, put.length))
      yield { rule: 'dead letter twice', subject: mark, detail: found.map(({ id }) => id).join(', ') }
  }
  for (const { id, operation } of facts.deadLetters)
    if (!explained.has(id) && !(operation && facts.misread.includes(operation)))
      yield { rule: 'dead letter without cause', subject: id, detail: `operation ${operation}` }
  const setAside = new Set(facts.deadLetters.map(({ operation }) => operation))
  for (const { id, errorCode } of facts.operations)
    if (errorCode === 'dead-lettered' && !setAside.has(id))
      yield { rule: 'dead letter missing', subject: id, detail: 'an operation that failed by dead letter' }
}
