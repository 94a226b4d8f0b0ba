import { describe, expect, test } from 'bun:test'
import { topics } from '../../../common/messages/topics.ts'
import type { Entry } from '../history.ts'
import type { Message, Snapshot } from '../snapshot.ts'
import { check } from './check.ts'
import { healthyRun, linkEvent, REDRIVE } from './healthy-run.ts'
import { type Rule, rules } from './violation.ts'

const healthy = healthyRun()

type Rows = Pick<Snapshot, 'operations' | 'results' | 'events' | 'deadLetters'>
type Seen = Extract<Entry, { kind: 'seen' }>

function find<Item>(items: readonly Item[], is: (item: Item) => boolean): Item {
  const found = items.find(is)
  if (found === undefined) throw new Error('The healthy run has nothing of the kind.')
  return found
}

const row = <Name extends keyof Rows>(name: Name, id: string): Rows[Name][number] =>
  find<Rows[Name][number]>(healthy[name], (each) => each.id === id)
const changed = <Name extends keyof Rows>(name: Name, id: string, change: Partial<Rows[Name][number]>) => ({
  [name]: healthy[name].map((each) => (each.id === id ? { ...each, ...change } : each)),
})
const removed = (name: keyof Rows, id: string) => ({ [name]: healthy[name].filter((each) => each.id !== id) })
const added = <Name extends keyof Rows>(name: Name, item: Rows[Name][number]) => ({ [name]: [...healthy[name], item] })

const isOf = (topic: string, id: string) => (message: Message) => message.topic === topic && message.operation === id
/** The messages of an operation on a topic, changed; removed where there is no change. */
const messages = (topic: string, id: string, change?: Partial<Message>) => ({
  messages: healthy.messages.flatMap((each) => (isOf(topic, id)(each) ? (change ? { ...each, ...change } : []) : each)),
})
const message = (topic: string, id: string) => find(healthy.messages, isOf(topic, id))
/** Two messages with each other's offsets. */
const swapped = (topic: string, a: string, b: string) => ({
  messages: healthy.messages
    .map((each) => {
      const other = isOf(topic, a)(each) ? b : isOf(topic, b)(each) ? a : undefined
      return other === undefined ? each : { ...each, offset: message(topic, other).offset }
    })
    .sort((one, other) => one.offset - other.offset),
})
const lastEvent = (topic: string) => find(healthy.events.toReversed(), ({ chain }) => chain.startsWith(topic))

/** What a client was shown of the operation, changed; removed where there is no change. */
const seen = (id: string, change: (entry: Seen) => Entry | undefined) => ({
  history: healthy.history.flatMap((each) => (each.kind === 'seen' && each.id === id ? (change(each) ?? []) : each)),
})
const shownAs = (entry: Seen, change: Partial<NonNullable<Seen['operation']>>): Entry =>
  entry.operation ? { ...entry, operation: { ...entry.operation, ...change } } : entry
const dollars = (usd: number) => Math.round(usd * 1e8)
const counts = (amount: number, period = '2026-01-02') => ({ limit: 'daily-usd', period, amount })

/** A broken promise each, and the rule that must find it. */
const broken: readonly [Rule, string, () => Partial<Snapshot>][] = [
  ['lost', 'an acknowledged operation is gone', () => removed('operations', 'ann-0')],
  [
    'two operations',
    'a retry after a lost answer made a second operation',
    () => added('operations', { ...row('operations', 'ann-0'), id: 'ann-9' }),
  ],
  [
    'another key',
    'an operation was acknowledged under the key of another',
    () => changed('operations', 'ann-0', { key: 'order-2' }),
  ],
  [
    'altered',
    'another amount was stored',
    () => changed('operations', 'ann-0', { input: { from: 'EUR', to: 'KWD', amount: '2' } }),
  ],
  [
    'refused and stored',
    'a refused submission is an operation',
    () => added('operations', { ...row('operations', 'ann-0'), id: 'ann-9', key: 'wrong' }),
  ],
  [
    'never submitted',
    'there is a result without an operation',
    () => added('results', { ...row('results', 'ann-0'), id: 'ann-9' }),
  ],
  ['not terminal', 'an operation hangs', () => changed('operations', 'ann-0', { status: 'pending', output: null })],
  [
    'late',
    'an operation was terminal more than 30 s after the faults',
    () =>
      seen('ann-0', (entry) =>
        entry.operation?.status === 'pending' ? entry : { ...entry, atMs: healthy.faultsEndedAtMs + 40_000 },
      ),
  ],
  [
    'late',
    'one of the gateways still showed an operation as pending',
    () => seen('ann-0', (entry) => (entry.how === 'last' ? shownAs(entry, { status: 'pending' }) : entry)),
  ],
  [
    'late',
    'nobody ever saw an operation terminal',
    () => seen('ann-0', (entry) => (entry.operation?.status === 'pending' ? entry : undefined)),
  ],
  ['no result', 'processor did not store what it answered', () => removed('results', 'ann-0')],
  [
    'outcomes differ',
    'gateway and processor disagree',
    () => changed('operations', 'ann-0', { status: 'failed', output: null, errorCode: 'limit-exceeded' }),
  ],
  [
    'outcomes differ',
    'a reply says something else',
    () =>
      messages(topics.results, 'ann-0', {
        type: 'posta.operation.failed',
        value: '{"error":{"code":"limit-exceeded"}}',
      }),
  ],
  [
    'outcomes differ',
    'an operation was performed twice, so that its two replies differ',
    () => {
      const reply = message(topics.results, 'ann-0')
      const value = reply.value.replace('{', '{"completedAt":"later",')
      return { messages: [...healthy.messages, { ...reply, offset: 90, value }] }
    },
  ],
  [
    'changed',
    'a client saw an outcome that is not the final one',
    () => seen('ann-0', (entry) => (entry.how === 'stream' ? shownAs(entry, { output: { amount: '7.000' } }) : entry)),
  ],
  [
    'changed',
    'a terminal operation was pending again',
    () => {
      const entry = find(healthy.history, (each) => each.kind === 'seen' && each.id === 'ann-0')
      return { history: [...healthy.history, { ...entry, atMs: healthy.faultsEndedAtMs }] }
    },
  ],
  ['redriven twice', 'an operation that was never dead-lettered was redriven', () => ({ misread: [] })],
  [
    'redriven twice',
    'the outcome is that of a redrive that was not answered',
    () => changed('results', 'bob-3', { redrive: 'another redrive' }),
  ],
  [
    'answered 404',
    'a GET after the 202 was answered 404',
    () => seen('ann-0', (entry) => (entry.how === 'get' ? { ...entry, status: 404 } : entry)),
  ],
  ['never sent', 'a request was never published', () => messages(topics.requests, 'ann-0')],
  ['no reply', 'a result was never published', () => messages(topics.results, 'ann-0')],
  ['sent out of order', 'two requests of one user changed places', () => swapped(topics.requests, 'ann-0', 'ann-2')],
  [
    'performed out of order',
    'two requests of one user were performed in another order',
    () => swapped(topics.results, 'ann-1', 'ann-2'),
  ],
  [
    'sent twice in calm',
    'two relays sent the same request',
    () => ({ messages: [...healthy.messages, { ...message(topics.requests, 'ann-5'), offset: 90 }] }),
  ],
  [
    'untrue rate',
    'a wrong rate of the external API was used',
    () => {
      const { facts } = row('results', 'ann-0')
      const wrong = facts?.rates.map((each) => ({ ...each, rate: '0.31' }))
      return changed('results', 'ann-0', { facts: facts && { ...facts, rates: wrong ?? [] } })
    },
  ],
  [
    'wrong amount',
    'a half was rounded up and not to even',
    () => changed('results', 'ann-0', { output: { ...row('results', 'ann-0').output, amount: '6.003' } }),
  ],
  [
    'wrong amount',
    'only a part of a table was stored',
    () => changed('results', 'ann-1', { output: { base: 'EUR', currencies: 3 } }),
  ],
  [
    'wrong count',
    'a conversion counted less than it is worth',
    () => changed('results', 'ann-0', { counts: counts(dollars(25)) }),
  ],
  ['untrue rate', 'a conversion was decided without rates', () => changed('results', 'ann-0', { facts: undefined })],
  [
    'wrong count',
    'a conversion counted on another day',
    () => changed('results', 'ann-0', { counts: counts(dollars(20.005 * 1.25), '2026-01-03') }),
  ],
  ['over the limit', 'a user’s day is over the limit', () => ({ limitUsdE8: dollars(50) })],
  ['wrong outcome', 'a conversion that fitted was refused', () => ({ limitUsdE8: dollars(200) })],
  [
    'chain broken',
    'an event was changed',
    () => changed('events', 'ann-0', { text: row('events', 'ann-0').text.replace('ann', 'eve') }),
  ],
  ['chain broken', 'an event in the middle was deleted', () => removed('events', 'ann-0')],
  [
    'chain broken',
    'two events changed places',
    () => ({
      events: healthy.events.map((event) => ({ ...event, seq: { 'ann-0': 2, 'ann-1': 1 }[event.id] ?? event.seq })),
    }),
  ],
  ['event missing', 'the last event was deleted', () => removed('events', lastEvent(topics.results).id)],
  [
    'event twice',
    'an event is stored twice, in a chain that is whole',
    () => {
      const last = lastEvent(topics.results)
      return added('events', linkEvent(last, last))
    },
  ],
  [
    'event without message',
    'an event was added that no message was',
    () => {
      const last = lastEvent(topics.results)
      return added('events', linkEvent({ ...last, id: 'new', text: last.text.replaceAll(last.id, 'new') }, last))
    },
  ],
  [
    'dead letter missing',
    'a message that nobody could read is not among the dead letters',
    () => removed('deadLetters', 'posta.requests.0.99.1'),
  ],
  [
    'dead letter missing',
    'an operation failed by dead letter, and there is none to redrive',
    () => ({
      ...removed('deadLetters', 'posta.requests.0.3.1'),
      ...changed('operations', 'bob-3', { status: 'failed', output: null, errorCode: 'dead-lettered' }),
    }),
  ],
  [
    'dead letter twice',
    'one message is two dead letters',
    () => added('deadLetters', { ...row('deadLetters', 'posta.requests.0.99.1'), id: 'again' }),
  ],
  [
    'dead letter without cause',
    'a message that could be handled was dead-lettered',
    () => added('deadLetters', { ...row('deadLetters', 'posta.requests.0.3.1'), id: 'new', operation: 'ann-0' }),
  ],
  ['shown wrongly', 'processor does not list a result', () => ({ shown: { ...healthy.shown, results: new Map() } })],
  [
    'shown wrongly',
    'monitor shows half a timeline',
    () => ({ shown: { ...healthy.shown, timelines: new Map([['ann-0', ['posta.operation.requested']]]) } }),
  ],
  [
    'shown wrongly',
    'monitor says that a chain is broken',
    () => ({ shown: { ...healthy.shown, audits: [{ ok: false, events: healthy.events.length }] } }),
  ],
  ['left in the outbox', 'a request is still to be sent', () => ({ outbox: 1 })],
  [
    'did not drain',
    'a process had to be killed',
    () => ({ processes: [{ name: 'monitor 1', maxRssBytes: 0, endedBy: 'SIGKILL' }] }),
  ],
  [
    'too large',
    'a process took a gigabyte of memory',
    () => ({ processes: [{ name: 'monitor 1', maxRssBytes: 1e9, endedBy: 0 }] }),
  ],
  ['too large', 'a write-ahead log grows for ever', () => ({ files: [{ name: 'broker.db-wal', bytes: 1e9 }] })],
]

const rulesOf = (change: Partial<Snapshot>) => check({ ...healthy, ...change }).map(({ rule }) => rule)

test('a run in which every promise was kept has no violation', () => {
  expect(check(healthy)).toEqual([])
})

describe('the checker finds that', () => {
  test.each(broken.map(([rule, what, change]) => ({ rule, what, change })))('$what: $rule', ({ rule, change }) => {
    expect(rulesOf(change())).toContain(rule)
  })

  test('and has no rule that never found anything here', () => {
    expect(new Set<string>(broken.map(([rule]) => rule))).toEqual(new Set(Object.keys(rules)))
  })
})

test('a redrive may turn failed into succeeded once, and never the other way round', () => {
  const failed = { status: 'failed', output: undefined, error: { code: 'dead-lettered', message: '' } } as const
  expect(rulesOf(seen('bob-3', (entry) => (entry.how === 'last' ? shownAs(entry, failed) : entry)))).toEqual([
    'changed',
  ])
})

test('a message that was deleted with its topic is no violation, but a missing outcome is', () => {
  const recreated = [{ topic: topics.results, atMs: healthy.faultsEndedAtMs }]
  const deleted = { ...messages(topics.results, 'ann-0'), recreated }
  expect(rulesOf(deleted)).toEqual([])
  const pending = changed('operations', 'ann-0', { status: 'pending', output: null })
  expect(rulesOf({ ...deleted, ...pending })).toContain('not terminal')
})

test('the event of a redrive must be in the audit', () => {
  expect(rulesOf(removed('events', REDRIVE))).toContain('event missing')
})
