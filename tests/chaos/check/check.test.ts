import { describe, expect, test } from 'bun:test'
import { topics } from '../../../common/messages/topics.ts'
import type { Entry } from '../history.ts'
import type { Message, RunRecord, Snapshot } from '../snapshot.ts'
import { check } from './check.ts'
import { healthyRun, linkEvent, REDRIVE, STUCK } from './healthy-run.ts'
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
/** The records of ann's run of that number, changed; they are numbered anew. */
const records = (id: string, change: (records: readonly RunRecord[]) => readonly RunRecord[]) => ({
  runs: healthy.runs.map((run) =>
    run.id === id ? { ...run, records: change(run.records).map((record, n) => ({ ...record, n })) } : run,
  ),
})
const without = (id: string, kind: string, step?: string) =>
  records(id, (all) => all.filter((record) => record.kind !== kind || record.step !== step))
/** The provider's ledger with other reservations, or other payments. */
const ledger = (change: (ledger: Snapshot['ledger']) => Partial<Snapshot['ledger']>) => ({
  ledger: { ...healthy.ledger, ...change(healthy.ledger) },
})
const reservationOf = (id: string, change: Partial<Snapshot['ledger']['reservations'][number]>) =>
  ledger(({ reservations }) => ({
    reservations: reservations.map((each) => (each.key.startsWith(id) ? { ...each, ...change } : each)),
  }))
/** The history without, or with other, cancels and answers for the operation. */
const tells = (id: string, change: (entry: Extract<Entry, { kind: 'tell' | 'told' }>) => Entry | undefined) => ({
  history: healthy.history.flatMap((entry) =>
    (entry.kind === 'tell' || entry.kind === 'told') && entry.id === id ? (change(entry) ?? []) : entry,
  ),
})
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
  ['wrong outcome', 'a payout was cancelled and nobody cancelled it', () => tells('ann-7', () => undefined)],
  [
    'wrong outcome',
    'a payout was refused for its limit after it had been granted',
    () => changed('operations', 'ann-7', { errorCode: 'limit-exceeded' }),
  ],
  [
    'wrong outcome',
    'a payout was paid to whom the provider refuses',
    () => changed('operations', 'ann-6', { input: { ...row('operations', 'ann-6').input, payee: 'refused-1' } }),
  ],
  ['wrong count', 'a cancelled payout still counts', () => changed('results', 'ann-7', { counts: counts(1) })],
  [
    'wrong amount',
    'a payout says another amount than it is worth',
    () => changed('results', 'ann-6', { output: { ...row('results', 'ann-6').output, amount: '6.003' } }),
  ],
  ['paid wrongly', 'another amount was paid', () => reservationOf('ann-6', { amount: '6.003' })],
  ['paid wrongly', 'somebody else was paid', () => reservationOf('ann-6', { payee: 'eve' })],
  [
    'paid wrongly',
    'a cancelled payout was paid',
    () =>
      ledger(({ payments }) => ({
        payments: [
          ...payments,
          { id: 'payment-ann-7', key: 'ann-7/pay', reservation: 'reservation-ann-7', status: 'settled' },
        ],
      })),
  ],
  [
    'paid wrongly',
    'there is a payment for no operation',
    () =>
      ledger(({ payments }) => ({
        payments: [...payments, { id: 'p', key: 'ann-99/pay', reservation: 'r', status: 'settled' }],
      })),
  ],
  ['not paid', 'a payout succeeded and nothing was paid', () => ledger(() => ({ payments: [] }))],
  [
    'not paid',
    'a payout succeeded while its payment is pending',
    () => ledger(({ payments }) => ({ payments: payments.map((each) => ({ ...each, status: 'pending' })) })),
  ],
  [
    'paid twice',
    'a payout was paid twice',
    () =>
      ledger(({ payments }) => ({
        payments: [...payments, ...payments.map((each) => ({ ...each, id: `${each.id}-2` }))],
      })),
  ],
  ['paid without approval', 'nobody approved a large payout', () => tells('ann-6', () => undefined)],
  [
    'paid without approval',
    'an operator refused a large payout, and it was paid',
    () => tells('ann-6', (entry) => (entry.kind === 'tell' ? { ...entry, approved: false } : entry)),
  ],
  ['left reserved', 'a cancelled payout keeps its reservation', () => reservationOf('ann-7', { state: 'open' })],
  [
    'history broken',
    'a record is missing',
    () => ({
      runs: healthy.runs.map((run) => ({ ...run, records: run.records.filter(({ n }) => n !== 1) })),
    }),
  ],
  ['history broken', 'a result was not recorded before the next step began', () => without('ann-6', 'done', 'reserve')],
  ['history broken', 'the provider paid and it was not recorded', () => without('ann-6', 'done', 'pay')],
  ['history broken', 'a payout ended before it was settled', () => without('ann-6', 'done', 'settled')],
  ['history broken', 'an undo was not recorded', () => without('ann-7', 'undone', 'reserve')],
  ['history broken', 'a payout has an outcome and its run no end', () => without('ann-7', 'ended')],
  ['history broken', 'a run ended twice', () => records('ann-6', (all) => [...all, ...all.slice(-1)])],
  [
    'history broken',
    'a step was recorded twice',
    () => records('ann-6', (all) => all.toSpliced(2, 0, ...all.slice(1, 2))),
  ],
  [
    'history broken',
    'a run was cancelled past its point of no return',
    () =>
      records('ann-6', (all) =>
        all.toSpliced(-1, 0, { n: 0, kind: 'failing', atMs: all.at(-1)?.atMs ?? 0, failure: { code: 'cancelled' } }),
      ),
  ],
  [
    'history broken',
    'a stuck run went on and nobody redrove it',
    () => changed('deadLetters', `posta.requests.0.6.1.${STUCK}`, { status: 'open' }),
  ],
  [
    'outcomes differ',
    'the outcome is not the one that the run ended with',
    () =>
      records('ann-7', (all) =>
        all.map((each) =>
          each.kind === 'ended' ? { ...each, outcome: { failure: { code: 'payee-refused' } } } : each,
        ),
      ),
  ],
  [
    'not terminal',
    'a run goes on after its operation has ended',
    () => ({ runs: healthy.runs.map((run) => ({ ...run, state: 'waiting' })) }),
  ],
  [
    'progress differs',
    'gateway lacks a step',
    () =>
      changed('operations', 'ann-7', {
        progress: { 1: row('operations', 'ann-7').progress[1] ?? { step: '', status: '', at: '' } },
      }),
  ],
  [
    'progress differs',
    'a step was never told',
    () => ({ messages: healthy.messages.filter(({ id }) => id !== 'ann-7.progress.1') }),
  ],
  [
    'progress differs',
    'a client was shown a part of it at the end',
    () => seen('ann-7', (entry) => shownAs(entry, { progress: [] })),
  ],
  [
    'not told',
    'a cancel that was accepted never reached the topic',
    () => ({ messages: healthy.messages.filter(({ id }) => id !== 'ann-7.cancel') }),
  ],
  [
    'never asked',
    'an answer on the topic is not the one that was given',
    () => tells('ann-6', (entry) => (entry.kind === 'tell' ? { ...entry, approved: false } : entry)),
  ],
  [
    'answered wrongly',
    'the owner approved their own payout',
    () => tells('ann-6', (entry) => ({ ...entry, user: 'ann' })),
  ],
  [
    'answered wrongly',
    'a cancel was accepted after the end',
    () => tells('ann-7', (entry) => ({ ...entry, atMs: healthy.faultsEndedAtMs })),
  ],
  [
    'answered 404',
    'an operation could not be cancelled since it was not found',
    () => tells('ann-7', (entry) => (entry.kind === 'told' ? { ...entry, status: 404 } : entry)),
  ],
  [
    'sent out of order',
    'a cancel was sent before its request',
    () => messages(topics.requests, 'ann-7', { offset: 1 }),
  ],
  [
    'sent twice in calm',
    'two relays sent the same cancel',
    () => {
      const cancel = find(healthy.messages, ({ id }) => id === 'ann-7.cancel')
      return { messages: [...healthy.messages, { ...cancel, offset: 90 }] }
    },
  ],
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
    'dead letter missing',
    'a run was stuck and no dead letter says so',
    () => removed('deadLetters', `posta.requests.0.6.1.${STUCK}`),
  ],
  [
    'dead letter without cause',
    'there is a dead letter of a run that was not stuck there',
    () =>
      added('deadLetters', { ...row('deadLetters', `posta.requests.0.6.1.${STUCK}`), id: 'posta.requests.0.6.1.3' }),
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

test('a refusal is right if it is right while a payout that failed later still counted', () => {
  const earlier = find(healthy.messages, isOf(topics.requests, 'ann-4')).offset - 0.5
  const request = messages(topics.requests, 'ann-7', { offset: earlier })
  // 50.0125 USD were used for good, and 25.00625 for a while; the refused one is worth 113.125.
  const between = { ...request, limitUsdE8: dollars(170) }
  const unknown = seen('ann-7', (entry) => (entry.how === 'last' ? entry : undefined))
  expect(check({ ...healthy, ...between, ...unknown }).map(({ subject }) => subject)).not.toContain('ann-4')
  expect(check({ ...healthy, ...unknown, limitUsdE8: dollars(190), messages: request.messages })).toContainEqual(
    expect.objectContaining({ rule: 'wrong outcome', subject: 'ann-4' }),
  )
})

test('a payout that a redrive began counts until its run ends, whatever clients saw before', () => {
  const earlier = find(healthy.messages, isOf(topics.requests, 'ann-4')).offset - 0.5
  const request = messages(topics.requests, 'ann-7', { offset: earlier, redrive: REDRIVE })
  const shown = seen('ann-7', (entry) => ({ ...entry, atMs: 0 }))
  const redriven = {
    ...request,
    ...shown,
    ...changed('results', 'ann-7', { redrive: REDRIVE }),
    limitUsdE8: dollars(170),
  }
  const subjectsOf = (broken: Partial<Snapshot>) => check({ ...healthy, ...broken }).map(({ subject }) => subject)
  expect(subjectsOf(redriven)).not.toContain('ann-4')
  expect(subjectsOf({ ...redriven, limitUsdE8: dollars(190) })).toContain('ann-4')
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
