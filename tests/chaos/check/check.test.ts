import { describe, expect, test } from 'bun:test'
import { topics } from '../../../common/messages/topics.ts'
import type { Entry } from '../history.ts'
import type { EventRow, Message, OperationRow, ResultRow, Snapshot } from '../snapshot.ts'
import { check } from './check.ts'
import { healthySnapshot, linkEvent, REDRIVE } from './healthy.ts'
import { type Rule, rules } from './violation.ts'

const healthy = healthySnapshot()

const operation = (id: string, change: Partial<OperationRow>): Partial<Snapshot> => ({
  operations: healthy.operations.map((row) => (row.id === id ? { ...row, ...change } : row)),
})
const result = (id: string, change: Partial<ResultRow>): Partial<Snapshot> => ({
  results: healthy.results.map((row) => (row.id === id ? { ...row, ...change } : row)),
})
const seen = (
  id: string,
  change: (entry: Extract<Entry, { kind: 'seen' }>) => Entry | undefined,
): Partial<Snapshot> => ({
  history: healthy.history.flatMap((entry) =>
    entry.kind === 'seen' && entry.id === id ? (change(entry) ?? []) : entry,
  ),
})
const without = <Name extends 'operations' | 'results' | 'events' | 'deadLetters'>(name: Name, id: string) => ({
  [name]: healthy[name].filter((row) => row.id !== id),
})
const messages = (change: (message: Message) => Message | undefined): Partial<Snapshot> => ({
  messages: healthy.messages.flatMap((message) => change(message) ?? []),
})
/** The places of two messages, swapped. */
const swapped = (topic: string, a: string, b: string): Partial<Snapshot> => {
  const offset = (id: string) =>
    healthy.messages.find((each) => each.topic === topic && each.operation === id)?.offset ?? -1
  return {
    messages:
      messages((message) => {
        if (message.topic !== topic) return message
        if (message.operation === a) return { ...message, offset: offset(b) }
        return message.operation === b ? { ...message, offset: offset(a) } : message
      }).messages?.toSorted((one, other) => one.offset - other.offset) ?? [],
  }
}
const find = <Item>(item: Item | undefined): Item => {
  if (item === undefined) throw new Error('The healthy run has nothing of the kind.')
  return item
}
const rowOf = (id: string) => find(healthy.operations.find((row) => row.id === id))
const resultOf = (id: string) => find(healthy.results.find((row) => row.id === id))
const dollars = (e8: number) => Math.round(e8 * 1e8)

/** One broken promise each, and the rule that must find it. */
const broken: readonly [Rule, string, () => Partial<Snapshot>][] = [
  ['lost', 'an acknowledged operation is gone', () => without('operations', 'ann-0')],
  [
    'key of two',
    'the retry of an answer that was lost made a second operation',
    () => ({ operations: [...healthy.operations, { ...rowOf('ann-0'), id: 'ann-9' }] }),
  ],
  ['two keys', 'an operation was acknowledged under another’s key', () => operation('ann-0', { key: 'order-2' })],
  [
    'altered',
    'another amount was stored',
    () => operation('ann-0', { input: { from: 'EUR', to: 'KWD', amount: '2' } }),
  ],
  [
    'refused with effect',
    'a submission that was refused is an operation',
    () => ({ operations: [...healthy.operations, { ...rowOf('ann-0'), id: 'ann-9', key: 'wrong' }] }),
  ],
  [
    'of nobody',
    'there is a result without an operation',
    () => ({ results: [...healthy.results, { ...resultOf('ann-0'), id: 'ann-9' }] }),
  ],
  ['not terminal', 'an operation hangs', () => operation('ann-0', { status: 'pending', output: null })],
  [
    'late',
    'an operation was terminal only later than 30 s after the faults',
    () =>
      seen('ann-0', (entry) => ({
        ...entry,
        atMs: entry.operation?.status === 'pending' ? entry.atMs : healthy.faultsEndedAtMs + 40_000,
      })),
  ],
  [
    'late',
    'one of the gateways went on to show an operation as pending',
    () =>
      seen('ann-0', (entry) =>
        entry.how === 'last' && entry.operation
          ? { ...entry, operation: { ...entry.operation, status: 'pending' } }
          : entry,
      ),
  ],
  [
    'late',
    'nobody ever saw an operation terminal',
    () => seen('ann-0', (entry) => (entry.operation?.status === 'pending' ? entry : undefined)),
  ],
  ['no result', 'processor has not stored what it answered', () => without('results', 'ann-0')],
  [
    'outcomes differ',
    'gateway and processor disagree',
    () => operation('ann-0', { status: 'failed', output: null, errorCode: 'limit-exceeded' }),
  ],
  [
    'outcomes differ',
    'a reply says something else',
    () =>
      messages((message) =>
        message.topic === topics.results && message.operation === 'ann-0'
          ? { ...message, type: 'posta.operation.failed', value: '{"error":{"code":"limit-exceeded"}}' }
          : message,
      ),
  ],
  [
    'outcomes differ',
    'an operation was performed twice: its two replies are not the same to the letter',
    () => {
      const reply = find(
        healthy.messages.find(({ topic, operation }) => topic === topics.results && operation === 'ann-0'),
      )
      return {
        messages: [
          ...healthy.messages,
          { ...reply, offset: 90, value: reply.value.replace('{', '{"completedAt":"later",') },
        ],
      }
    },
  ],
  [
    'changed',
    'a client saw an outcome that does not stand',
    () =>
      seen('ann-0', (entry) =>
        entry.how === 'stream' && entry.operation
          ? { ...entry, operation: { ...entry.operation, output: { amount: '7.000' } } }
          : entry,
      ),
  ],
  [
    'changed',
    'what was terminal was pending again',
    () => ({
      history: [
        ...healthy.history,
        {
          kind: 'seen',
          atMs: healthy.faultsEndedAtMs,
          user: 'ann',
          id: 'ann-0',
          how: 'get',
          status: 200,
          operation: { id: 'ann-0', type: 'convert', status: 'pending', input: {}, createdAt: '' },
        },
      ],
    }),
  ],
  ['redriven twice', 'an operation that was never set aside was redriven', () => ({ misread: [] })],
  [
    'redriven twice',
    'the outcome is that of a redrive that nobody answered for',
    () => result('bob-3', { redrive: 'another redrive' }),
  ],
  [
    'said 404',
    'a GET after the 202 said 404',
    () => seen('ann-0', (entry) => (entry.how === 'get' ? { ...entry, status: 404 } : entry)),
  ],
  [
    'never sent',
    'an operation’s request was never published',
    () =>
      messages((message) => (message.topic === topics.requests && message.operation === 'ann-0' ? undefined : message)),
  ],
  [
    'no reply',
    'an operation’s result was never published',
    () =>
      messages((message) => (message.topic === topics.results && message.operation === 'ann-0' ? undefined : message)),
  ],
  ['sent out of order', 'requests of one user changed places', () => swapped(topics.requests, 'ann-0', 'ann-2')],
  [
    'performed out of order',
    'one user’s requests were performed in another order',
    () => swapped(topics.results, 'ann-1', 'ann-2'),
  ],
  [
    'sent twice in calm',
    'two relays sent the same request',
    () => {
      const request = find(
        healthy.messages.find(({ topic, operation }) => topic === topics.requests && operation === 'ann-5'),
      )
      return { messages: [...healthy.messages, { ...request, offset: 90 }] }
    },
  ],
  [
    'untrue rate',
    'a lie of the external API was taken',
    () => {
      const { rates } = resultOf('ann-0')
      return result('ann-0', { rates: { ...rates, rates: rates.rates.map((each) => ({ ...each, rate: '0.31' })) } })
    },
  ],
  [
    'wrong amount',
    'half was rounded up and not to even',
    () => ({ ...result('ann-0', { output: { ...resultOf('ann-0').output, amount: '6.003' } }) }),
  ],
  ['wrong amount', 'a table was stored in part', () => result('ann-1', { output: { base: 'EUR', currencies: 3 } })],
  ['wrong count', 'a conversion counted less than it is worth', () => result('ann-0', { countedUsdE8: dollars(25) })],
  ['wrong count', 'a conversion counted on another day', () => result('ann-0', { day: '2026-01-03' })],
  ['over the limit', 'a user’s day is over the limit', () => ({ limitUsdE8: dollars(50) })],
  ['wrong outcome', 'what fitted was refused', () => ({ limitUsdE8: dollars(200) })],
  [
    'chain broken',
    'an event was changed',
    () => ({
      events: healthy.events.map((event) =>
        event.id === 'ann-0' ? { ...event, text: event.text.replace('ann', 'eve') } : event,
      ),
    }),
  ],
  ['chain broken', 'an event was taken out of the middle', () => without('events', 'ann-0')],
  [
    'chain broken',
    'two events changed places',
    () => ({
      events: healthy.events.map((event) =>
        event.id === 'ann-0' ? { ...event, seq: 2 } : event.id === 'ann-1' ? { ...event, seq: 1 } : event,
      ),
    }),
  ],
  ['event missing', 'the last event was cut off', () => without('events', lastOf(topics.results).id)],
  [
    'event twice',
    'an event was stored twice, in a chain that is whole',
    () => {
      const last = lastOf(topics.results)
      return { events: [...healthy.events, linkEvent(last, last)] }
    },
  ],
  [
    'event of nothing',
    'an event was added that no message was',
    () => {
      const last = lastOf(topics.results)
      const text = last.text.replaceAll(last.id, 'invented')
      return { events: [...healthy.events, linkEvent({ ...last, id: 'invented', text }, last)] }
    },
  ],
  [
    'dead letter missing',
    'a message that nobody could read is not among the dead letters',
    () => without('deadLetters', 'posta.requests.0.99.1'),
  ],
  [
    'dead letter missing',
    'an operation failed by dead letter, and there is none to redrive',
    () => ({
      ...without('deadLetters', 'posta.requests.0.3.1'),
      ...operation('bob-3', { status: 'failed', output: null, errorCode: 'dead-lettered' }),
    }),
  ],
  [
    'dead letter twice',
    'one message is two dead letters',
    () => ({ deadLetters: [...healthy.deadLetters, { ...find(healthy.deadLetters.at(-1)), id: 'again' }] }),
  ],
  [
    'dead letter without cause',
    'a message that was all right was set aside',
    () => ({
      deadLetters: [...healthy.deadLetters, { ...find(healthy.deadLetters[0]), id: 'another', operation: 'ann-0' }],
    }),
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
  ['left in the outbox', 'something is still to be sent', () => ({ outbox: 1 })],
  [
    'did not drain',
    'a process had to be killed',
    () => ({ processes: [{ name: 'monitor 1', maxRssBytes: 0, endedBy: 'SIGKILL' }] }),
  ],
  [
    'too large',
    'a process took a gigabyte',
    () => ({ processes: [{ name: 'monitor 1', maxRssBytes: 1e9, endedBy: 0 }] }),
  ],
  ['too large', 'a write-ahead log grows for ever', () => ({ files: [{ name: 'broker.db-wal', bytes: 1e9 }] })],
]

function lastOf(topic: string): EventRow {
  return find(healthy.events.findLast(({ chain }) => chain.startsWith(topic)))
}

test('a run in which every promise was kept has no violation', () => {
  expect(check(healthy)).toEqual([])
})

describe('the checker finds that', () => {
  test.each(broken.map(([rule, what, change]) => ({ rule, what, change })))('$what: $rule', ({ rule, change }) => {
    const found = check({ ...healthy, ...change() })
    expect(found.map((violation) => violation.rule)).toContain(rule)
  })

  test('and has no rule that was never seen to find something', () => {
    expect(new Set<string>(broken.map(([rule]) => rule))).toEqual(new Set(Object.keys(rules)))
  })
})

test('a redrive is no change: it turns failed into succeeded once, and the other way never', () => {
  const turned = check({
    ...healthy,
    ...seen('bob-3', (entry) => {
      const { operation: shown } = entry
      if (!shown || shown.status === 'pending' || entry.how === 'stream') return entry
      const failed = {
        ...shown,
        status: 'failed' as const,
        output: undefined,
        error: { code: 'dead-lettered', message: '' },
      }
      return entry.how === 'last' ? { ...entry, operation: failed } : entry
    }),
  })
  expect(turned.map(({ rule }) => rule)).toEqual(['changed'])
})

test('what a topic took with it when it was deleted is not held against anyone, but a missing outcome is', () => {
  const remade = [{ topic: topics.results, atMs: healthy.faultsEndedAtMs }]
  const lost = messages((message) =>
    message.topic === topics.results && message.operation === 'ann-0' ? undefined : message,
  )
  expect(check({ ...healthy, ...lost, remade })).toEqual([])
  const pending = operation('ann-0', { status: 'pending', output: null })
  expect(check({ ...healthy, ...lost, ...pending, remade }).map(({ rule }) => rule)).toContain('not terminal')
})

test(`the redrive’s own event must be in the audit: ${REDRIVE}`, () => {
  expect(check({ ...healthy, ...without('events', REDRIVE) }).map(({ rule }) => rule)).toContain('event missing')
})
