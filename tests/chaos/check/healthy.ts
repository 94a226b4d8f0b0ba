import { topics } from '../../../common/messages/topics.ts'
import type { Entry, SeenOperation } from '../history.ts'
import type { DeadLetterRow, EventRow, Message, OperationRow, RateTable, ResultRow, Snapshot } from '../snapshot.ts'

const START_MS = Date.UTC(2026, 0, 2, 12)
const ENDED_MS = START_MS + 60_000
const LIMIT_USD = 100

/** What the one misread operation was redriven as. */
export const REDRIVE = 'posta.requests.0.3.1.redriven'

/** For tests of the checker: a run in which every promise was kept. Its operations are named `<user>-<number>`. */
export function healthySnapshot(): Snapshot {
  const history: Entry[] = []
  const operations: OperationRow[] = []
  const results: ResultRow[] = []
  const messages: Message[] = []
  const chains = new Map<string, EventRow[]>()
  const deadLetters: DeadLetterRow[] = []
  let nowMs = START_MS

  function publish(
    topic: string,
    key: string,
    type: string,
    id: string,
    operation: string | undefined,
    data: object,
    redrive?: string,
  ) {
    const offset = messages.filter((message) => message.topic === topic).length
    const value = JSON.stringify(data)
    messages.push({ topic, generation: 0, partition: 0, offset, key, type, id, operation, redrive, value })
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
    const type = outcome === 'stored' ? 'store-rates' : 'convert'
    const amount = outcome === 'refused' ? '90.5' : '20.005'
    const input: Record<string, string> = outcome === 'stored' ? { base: 'EUR' } : { from: 'EUR', to: 'KWD', amount }
    const rates: RateTable = {
      base: 'EUR',
      date: '2026-01-02',
      source: number % 2 === 0 ? 'live' : 'bundled',
      rates: [
        { code: 'KWD', rate: '0.3' },
        { code: 'USD', rate: '1.25' },
      ],
    }
    const createdAtMs = nowMs
    const pending = { id, type, status: 'pending' as const, input, createdAt: new Date(createdAtMs).toISOString() }
    history.push({ kind: 'submit', atMs: nowMs++, user, key, attempt: 0, type, input })
    history.push({ kind: 'unknown', atMs: nowMs++, user, key, attempt: 0, reason: 'TimeoutError' })
    history.push({ kind: 'submit', atMs: nowMs++, user, key, attempt: 1, type, input })
    history.push({ kind: 'answer', atMs: nowMs++, user, key, attempt: 1, status: 202, operation: pending })
    publish(topics.requests, user, 'posta.operation.requested', id, id, { operation: id })
    history.push({ kind: 'seen', atMs: nowMs++, user, id, how: 'get', status: 200, operation: pending })

    const output =
      outcome === 'stored'
        ? { base: 'EUR', currencies: 2 }
        : { amount: '6.002', currency: 'KWD', rate: '0.3', date: '2026-01-02', source: rates.source }
    const failed = (code: string) => ({ status: 'failed' as const, error: { code, message: '' } })
    const final = outcome === 'refused' ? failed('limit-exceeded') : { status: 'succeeded' as const, output }
    if (outcome === 'redriven') {
      const first = failed('dead-lettered')
      publish(topics.results, user, 'posta.operation.failed', `${id}.result`, id, { error: first.error })
      history.push({
        kind: 'seen',
        atMs: nowMs++,
        user,
        id,
        how: 'get',
        status: 200,
        operation: { ...pending, ...first },
      })
      deadLetters.push({
        id: 'posta.requests.0.3.1',
        status: 'redriven',
        topic: topics.requests,
        operation: id,
        preview: '{}',
      })
      publish(topics.events, user, 'posta.dead-letter.redriven', REDRIVE, id, {})
    }
    const redrive = outcome === 'redriven' ? REDRIVE : undefined
    const replyType = `posta.operation.${final.status}`
    publish(
      topics.results,
      user,
      replyType,
      `${id}.${redrive ?? 'result'}`,
      id,
      'error' in final ? { error: final.error } : { output },
      redrive,
    )
    const shown: SeenOperation = { ...pending, ...final }
    history.push({ kind: 'seen', atMs: nowMs++, user, id, how: 'stream', status: 200, operation: shown })
    history.push({ kind: 'seen', atMs: ENDED_MS + 9000, user, id, how: 'last', status: 200, operation: shown })
    const errorCode = 'error' in final ? final.error.code : null
    const finalOutput = 'error' in final ? null : output
    operations.push({ id, user, type, status: final.status, input, output: finalOutput, errorCode, key, createdAtMs })
    results.push({
      id,
      user,
      type,
      status: final.status,
      input,
      output: finalOutput,
      error: 'error' in final ? final.error : null,
      day: '2026-01-02',
      countedUsdE8: final.status === 'succeeded' && type === 'convert' ? 20.005 * 1.25 * 1e8 : 0,
      redrive: redrive ?? null,
      rates,
    })
  }

  for (const user of ['ann', 'bob']) {
    history.push({ kind: 'user', atMs: nowMs++, user })
    run(user, 0, 'granted', 'order-0')
    run(user, 1, 'stored', 'order-1')
    run(user, 2, 'granted', 'order-2')
    if (user === 'bob') run(user, 3, 'redriven', 'order-3')
    run(user, 4, 'refused', 'order-4')
    const wrong = { from: 'EUR', to: 'KWD', amount: '-1' }
    history.push({ kind: 'submit', atMs: nowMs++, user, key: 'wrong', attempt: 0, type: 'convert', input: wrong })
    history.push({ kind: 'answer', atMs: nowMs++, user, key: 'wrong', attempt: 0, status: 422, code: 'invalid-input' })
    run(user, 5, 'stored', 'calm-5')
  }
  const poison = {
    topic: topics.requests,
    generation: 0,
    partition: 0,
    offset: 99,
    key: 'x',
    type: undefined,
    id: undefined,
    operation: undefined,
    redrive: undefined,
    value: 'poison-1',
  }
  messages.push(poison)
  deadLetters.push({
    id: 'posta.requests.0.99.1',
    status: 'open',
    topic: topics.requests,
    operation: null,
    preview: 'poison-1',
  })

  const events = [...chains.values()].flat()
  return {
    parts: 'embedded',
    limitUsdE8: LIMIT_USD * 1e8,
    faultsEndedAtMs: ENDED_MS,
    history,
    operations,
    outbox: 0,
    results,
    events,
    deadLetters,
    messages,
    remade: [],
    poison: [{ mark: 'poison-1', topic: topics.requests, atMs: START_MS, acknowledged: true }],
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

/** The event as it follows another: with a hash that is right. */
export function linkEvent(
  event: Pick<EventRow, 'id' | 'type' | 'operation' | 'chain' | 'text'>,
  before: Pick<EventRow, 'seq' | 'hash'> | undefined,
): EventRow {
  const seq = (before?.seq ?? 0) + 1
  const previousHash = before?.hash ?? '0'.repeat(64)
  const bytes = `posta audit chain 1\n${event.chain}\n${seq}\n${previousHash}\n${event.text}`
  return { ...event, seq, previousHash, hash: new Bun.CryptoHasher('sha256').update(bytes).digest('hex') }
}
