import { topics } from '../../../common/messages/topics.ts'
import type { Entry, SeenOperation } from '../history.ts'
import type {
  DeadLetterRow,
  EventRow,
  Message,
  OperationRow,
  Progress,
  RateTable,
  ResultRow,
  RunRecord,
  RunRow,
  Snapshot,
} from '../snapshot.ts'
import { hashOf } from './events.ts'

const START_MS = Date.UTC(2026, 0, 2, 12)
const ENDED_MS = START_MS + 60_000
const DAY = '2026-01-02'
const LIMIT_USD = 110
const APPROVAL_ABOVE_USD = 20
const OPERATOR = 'olga'

/** What a conversion or a payout of 20.005 EUR counts. */
const COUNTS = { limit: 'daily-usd', period: DAY, amount: 20.005 * 1.25 * 1e8 }

/** The record of a payout that was paid at which its run was stuck. */
export const STUCK = 5

/** The event of the one redrive of a request. */
export const REDRIVE = 'posta.requests.0.3.1.redriven'

type EntryAt<Each> = Each extends unknown ? Omit<Each, 'atMs' | 'user'> & { readonly atMs?: number } : never

/** For tests of the checker: a run in which every promise was kept. Its operations are named `<user>-<number>`. */
export function healthyRun(): Snapshot {
  const history: Entry[] = []
  const operations: OperationRow[] = []
  const results: ResultRow[] = []
  const runs: RunRow[] = []
  const reservations: Snapshot['ledger']['reservations'][number][] = []
  const payments: Snapshot['ledger']['payments'][number][] = []
  const messages: Message[] = []
  const chains = new Map<string, EventRow[]>()
  const deadLetters: DeadLetterRow[] = []
  let nowMs = START_MS

  const note = (user: string, entry: EntryAt<Entry>) => history.push({ atMs: nowMs++, ...entry, user })

  function publish(
    topic: string,
    message: Pick<Message, 'key' | 'type' | 'id' | 'operation'>,
    data: object,
    redrive?: string,
  ) {
    const offset = messages.filter((each) => each.topic === topic).length
    const value = JSON.stringify(data)
    messages.push({ ...message, topic, generation: 0, partition: 0, offset, redrive, value })
    const { id = '', type = '', operation } = message
    const chain = `${topic}/0`
    const events = chains.get(chain) ?? []
    chains.set(chain, events)
    const text = JSON.stringify({ topic, partition: 0, offset, headers: [['ce_id', id]], value })
    events.push(linkEvent({ id, type, operation, chain, text }, events.at(-1)))
  }

  function run(
    user: string,
    number: number,
    outcome: 'granted' | 'refused' | 'stored' | 'redriven',
    key: string,
  ): void {
    const id = `${user}-${number}`
    const isStored = outcome === 'stored'
    const type = isStored ? 'store-rates' : 'convert'
    const amount = outcome === 'refused' ? '90.5' : '20.005'
    const input: Record<string, string> = isStored ? { base: 'EUR' } : { from: 'EUR', to: 'KWD', amount }
    const rates = ratesOf(number)
    const createdAtMs = nowMs
    const pending: SeenOperation = { id, type, status: 'pending', input, createdAt: new Date(nowMs).toISOString() }
    note(user, { kind: 'submit', key, attempt: 0, type, input })
    note(user, { kind: 'unknown', key, attempt: 0, reason: 'TimeoutError' })
    note(user, { kind: 'submit', key, attempt: 1, type, input })
    note(user, { kind: 'answer', key, attempt: 1, status: 202, operation: pending })
    const message = { key: user, operation: id }
    publish(topics.requests, { ...message, type: 'posta.operation.requested', id }, { operation: id })
    note(user, { kind: 'seen', id, how: 'get', status: 200, operation: pending })

    if (outcome === 'redriven') {
      const error = { code: 'dead-lettered', message: '' }
      publish(topics.results, { ...message, type: 'posta.operation.failed', id: `${id}.result` }, { error })
      note(user, { kind: 'seen', id, how: 'get', status: 200, operation: { ...pending, status: 'failed', error } })
      const letter = { id: 'posta.requests.0.3.1', status: 'redriven', topic: topics.requests, preview: '{}' }
      deadLetters.push({ ...letter, operation: id })
      publish(topics.events, { ...message, type: 'posta.dead-letter.redriven', id: REDRIVE }, {})
    }
    const redrive = outcome === 'redriven' ? REDRIVE : undefined
    const status = outcome === 'refused' ? 'failed' : 'succeeded'
    const error = outcome === 'refused' ? { code: 'limit-exceeded', message: '' } : undefined
    const converted = { amount: '6.002', currency: 'KWD', rate: '0.3', date: DAY, source: rates.source }
    const output = error ? undefined : isStored ? { base: 'EUR', currencies: 2 } : converted
    const reply = { ...message, type: `posta.operation.${status}`, id: `${id}.${redrive ?? 'result'}` }
    publish(topics.results, reply, { output, error }, redrive)
    const shown: SeenOperation = { ...pending, status, output, error }
    note(user, { kind: 'seen', id, how: 'stream', status: 200, operation: shown })
    note(user, { kind: 'seen', atMs: ENDED_MS + 9000, id, how: 'last', status: 200, operation: shown })
    const row = { id, user, type, status, input, output } as const
    operations.push({ ...row, errorCode: error?.code, progress: {}, key, createdAtMs })
    const counts = status === 'succeeded' && !isStored ? COUNTS : undefined
    results.push({ ...row, error, createdAt: pending.createdAt, counts, redrive, facts: rates })
  }

  /** A payout that waits for an approval. One is cancelled while it waits. The other is paid after its run was stuck. */
  function payOut(user: string, number: number, outcome: 'paid' | 'cancelled', key: string): void {
    const id = `${user}-${number}`
    const isPaid = outcome === 'paid'
    const input = { from: 'EUR', to: 'KWD', amount: '20.005', payee: 'payee-1' }
    const rates = ratesOf(number)
    const createdAtMs = nowMs
    const createdAt = new Date(nowMs).toISOString()
    const pending: SeenOperation = { id, type: 'payout', status: 'pending', input, createdAt }
    note(user, { kind: 'submit', key, attempt: 0, type: 'payout', input })
    note(user, { kind: 'answer', key, attempt: 0, status: 202, operation: pending })
    const message = { key: user, operation: id }
    publish(topics.requests, { ...message, type: 'posta.operation.requested', id }, { operation: id })
    const letter = { id: `posta.requests.0.${number}.1.${STUCK}`, topic: topics.requests, preview: '{}', operation: id }

    const records: RunRecord[] = []
    const progress: Record<string, Progress> = {}
    const record = (kind: string, more: Partial<RunRecord> = {}) => {
      const n = records.length
      const atMs = nowMs++
      records.push({ n, atMs, kind, ...more })
      if (!['done', 'undone', 'waiting'].includes(kind)) return
      const told = { step: more.step ?? '', status: kind, at: new Date(atMs).toISOString() }
      progress[n] = told
      const type = 'posta.operation.progressed'
      publish(topics.results, { ...message, type, id: `${id}.progress.${n}` }, { operation: id, n, ...told })
    }
    const reservation = `reservation-${id}`
    record('started', { step: 'reserve', final: false })
    const reserved = { id: reservation, key: `${id}/reserve`, amount: '6.002', currency: 'KWD', payee: 'payee-1' }
    reservations.push({ ...reserved, state: isPaid ? 'paid' : 'released' })
    record('done', { step: 'reserve', result: { id: reservation } })
    record('waiting', { step: 'approve' })
    const [by, what] = isPaid ? ([OPERATOR, 'approve'] as const) : ([user, 'cancel'] as const)
    const approved = isPaid ? { approved: true } : {}
    note(by, { kind: 'tell', id, what, ...approved })
    note(by, { kind: 'told', id, what, status: 202 })
    const told = isPaid
      ? { type: 'posta.operation.signalled', id: `${id}.signal.approve` }
      : { type: 'posta.operation.cancel-requested', id: `${id}.cancel` }
    publish(topics.requests, { ...message, ...told }, { operation: id, by, ...(isPaid && { payload: approved }) })
    if (isPaid) {
      record('done', { step: 'approve', result: approved })
      record('started', { step: 'pay', final: true })
      record('stuck')
      deadLetters.push({ ...letter, status: 'redriven' })
      record('resumed')
      payments.push({ id: `payment-${id}`, key: `${id}/pay`, reservation, status: 'settled' })
      record('done', { step: 'pay', result: { id: `payment-${id}`, status: 'pending' } })
      record('done', { step: 'settled', result: 'settled' })
    } else {
      record('failing', { failure: { code: 'cancelled' } })
      record('undone', { step: 'reserve' })
    }
    const reference = `payment-${id}`
    const paid = { amount: '6.002', currency: 'KWD', rate: '0.3', date: DAY, source: rates.source, reference }
    const output = isPaid ? paid : undefined
    const error = isPaid ? undefined : { code: 'cancelled', message: '' }
    record('ended', { outcome: isPaid ? { output: paid } : { failure: { code: 'cancelled' } } })
    runs.push({ id, user, state: 'ended', records })
    const status = isPaid ? 'succeeded' : 'failed'
    publish(topics.results, { ...message, type: `posta.operation.${status}`, id: `${id}.result` }, { output, error })
    const shown: SeenOperation = { ...pending, status, output, error, progress: Object.values(progress) }
    note(user, { kind: 'seen', id, how: 'get', status: 200, operation: shown })
    note(user, { kind: 'seen', atMs: ENDED_MS + 9000, id, how: 'last', status: 200, operation: shown })
    const row = { id, user, type: 'payout', status, input, output } as const
    operations.push({ ...row, errorCode: error?.code, progress, key, createdAtMs })
    results.push({ ...row, error, createdAt, counts: isPaid ? COUNTS : undefined, facts: rates })
  }

  note(OPERATOR, { kind: 'operator' })
  for (const user of ['ann', 'bob']) {
    note(user, { kind: 'user' })
    run(user, 0, 'granted', 'order-0')
    run(user, 1, 'stored', 'order-1')
    run(user, 2, 'granted', 'order-2')
    if (user === 'bob') run(user, 3, 'redriven', 'order-3')
    run(user, 4, 'refused', 'order-4')
    const input = { from: 'EUR', to: 'KWD', amount: '-1' }
    note(user, { kind: 'submit', key: 'wrong', attempt: 0, type: 'convert', input })
    note(user, { kind: 'answer', key: 'wrong', attempt: 0, status: 422, code: 'invalid-input' })
    run(user, 5, 'stored', 'calm-5')
    payOut(user, 6, 'paid', 'calm-6')
    payOut(user, 7, 'cancelled', 'calm-7')
  }
  const mark = 'poison-1'
  const unread = { type: undefined, id: undefined, operation: undefined, redrive: undefined }
  messages.push({ ...unread, topic: topics.requests, generation: 0, partition: 0, offset: 99, key: 'x', value: mark })
  deadLetters.push({
    id: 'posta.requests.0.99.1',
    status: 'open',
    topic: topics.requests,
    operation: null,
    preview: mark,
  })

  const events = [...chains.values()].flat()
  return {
    parts: 'embedded',
    limitUsdE8: LIMIT_USD * 1e8,
    approvalAboveUsdE8: APPROVAL_ABOVE_USD * 1e8,
    faultsEndedAtMs: ENDED_MS,
    history,
    operations,
    outbox: 0,
    results,
    runs,
    ledger: { reservations, payments },
    events,
    deadLetters,
    messages,
    recreated: [],
    poison: [{ mark, topic: topics.requests, atMs: START_MS, acknowledged: true }],
    misread: ['bob-3'],
    rates: { live: { EUR: { KWD: '0.3', USD: '1.25' } }, bundled: { EUR: { KWD: '3e-1', USD: '1.250' } } },
    shown: {
      results: new Map(results.map(({ id, status }) => [id, { status }])),
      timelines: new Map([['ann-0', ['posta.operation.requested', 'posta.operation.succeeded']]]),
      audits: [{ ok: true, events: events.length }],
    },
    processes: [{ name: 'gateway 0', maxRssBytes: 200e6, endedBy: 0 }],
    files: [{ name: 'broker.db-wal', bytes: 4e6 }],
  }
}

function ratesOf(number: number): RateTable {
  return {
    base: 'EUR',
    date: DAY,
    source: number % 2 === 0 ? 'live' : 'bundled',
    rates: [
      { code: 'KWD', rate: '0.3' },
      { code: 'USD', rate: '1.25' },
    ],
  }
}

/** The event with the number and the hash that follow from the event before it. */
export function linkEvent(
  event: Pick<EventRow, 'id' | 'type' | 'operation' | 'chain' | 'text'>,
  before: Pick<EventRow, 'seq' | 'hash'> = { seq: 0, hash: '0'.repeat(64) },
): EventRow {
  const linked = { ...event, seq: before.seq + 1, previousHash: before.hash }
  return { ...linked, hash: hashOf(linked) }
}
