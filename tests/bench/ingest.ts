import { Database } from 'bun:sqlite'
import { join } from 'node:path'
import type { Broker } from '../../common/broker/broker.ts'
import { openEmbedded } from '../../common/broker/embedded/embedded.ts'
import { encode } from '../../common/messages/envelope.ts'
import type { Outgoing } from '../../common/messages/message.ts'
import type { RateTable } from '../../common/operations/rates.ts'
import { systemDeps } from '../../common/service/deps.ts'
import { createLog } from '../../common/service/log.ts'
import { createMetrics } from '../../common/service/metrics.ts'
import { type Append, createAppend } from '../../monitor/events/append.ts'
import { receiveEvents } from '../../monitor/events/receive.ts'
import { openStore } from '../../monitor/store/store.ts'
import { type Figure, inTurn, temporaryFolder, timeMs } from './measure.ts'

const EVENTS = 100_000
const ROUNDS = 9
/** One round more, since the first does not count. */
const EVENTS_PER_ROUND = EVENTS / (ROUNDS + 1)
const EVENTS_PER_TRANSACTION = 500

/**
 * Monitor's ingest, from the embedded broker to rows that are durable, chained and indexed, over the insert of the same
 * rows alone into the same table with the same indexes. Both tables grow to 100,000 rows.
 */
export async function measureIngest(): Promise<readonly Figure[]> {
  const folder = temporaryFolder()
  const [ingestedPath, rawPath] = [join(folder, 'ingested.db'), join(folder, 'raw.db')]
  const broker = openEmbedded({ path: join(folder, 'broker.db') })
  const [store, sameTables] = [openStore(`file:${ingestedPath}`), openStore(`file:${rawPath}`)]
  // A store makes its tables when it is first asked something.
  await Promise.all([store.ping(), sameTables.ping()])
  await sameTables.close()
  const ingested = new Database(ingestedPath, { readonly: true })
  const raw = new Database(rawPath)
  raw.run('PRAGMA synchronous = FULL')
  const rows = ingested.prepare('SELECT * FROM events ORDER BY rowid DESC LIMIT ?')
  const insert = raw.prepare(`INSERT INTO events VALUES (${rows.columnNames.map(() => '?').join(', ')})`)
  const insertAll = raw.transaction((given: ReturnType<typeof rows.values>) => {
    for (const row of given) insert.run(...row)
  })

  try {
    const { ratio, ours, theirs } = await inTurn(
      ROUNDS,
      async () => {
        await publish(broker)
        return (EVENTS_PER_ROUND / (await timeMs(() => ingest(broker, store)))) * 1000
      },
      async () => {
        const given = rows.values(EVENTS_PER_ROUND).toReversed()
        const elapsedMs = await timeMs(() => {
          for (let start = 0; start < given.length; start += EVENTS_PER_TRANSACTION)
            insertAll.immediate(given.slice(start, start + EVENTS_PER_TRANSACTION))
        })
        return (EVENTS_PER_ROUND / elapsedMs) * 1000
      },
    )
    return [
      {
        name: "monitor's ingest / the same rows inserted alone",
        ratio,
        aim: { atLeast: 0.5 },
        of: { ingestedPerS: ours, insertedPerS: theirs },
      },
    ]
  } finally {
    await broker.close()
    await store.close()
    ingested.close()
    raw.close()
  }
}

/** Takes in what the broker holds. */
async function ingest(broker: Broker, store: ReturnType<typeof openStore>): Promise<void> {
  const append = createAppend(store.events)
  const complete = Promise.withResolvers<void>()
  let stored = 0
  const counted: Append = async (events, signal) => {
    await append(events, signal)
    stored += events.length
    if (stored === EVENTS_PER_ROUND) complete.resolve()
  }
  const subscription = receiveEvents({
    broker,
    append: counted,
    deadLetters: store.deadLetters,
    onStored: () => {},
    log: createLog('bench', 'silent'),
    metrics: createMetrics('bench'),
    deps: systemDeps,
  })
  await Promise.race([complete.promise, subscription.ended])
  await subscription.close()
}

/** What a system at work publishes: of each operation its request and its result, and now and then a login. */
async function publish(broker: Broker): Promise<void> {
  for (let published = 0; published < EVENTS_PER_ROUND; published += EVENTS_PER_TRANSACTION) {
    const messages: Outgoing[] = []
    while (messages.length < EVENTS_PER_TRANSACTION) messages.push(...messagesOf(`user-${messages.length % 100}`))
    await broker.publish(messages.slice(0, EVENTS_PER_TRANSACTION))
  }
}

function messagesOf(user: string): Outgoing[] {
  const operation = systemDeps.newId()
  const createdAt = new Date().toISOString()
  const common = { time: createdAt, subject: operation, traceparent: TRACEPARENT }
  const of = { user, operation, operationType: 'convert', createdAt } as const
  const { date, source } = RATES
  return [
    encode({
      id: systemDeps.newId(),
      type: 'posta.user.logged-in',
      time: createdAt,
      traceparent: TRACEPARENT,
      data: { user, session: systemDeps.newId() },
    }),
    encode({
      ...common,
      id: operation,
      type: 'posta.operation.requested',
      data: { ...of, input: { from: 'USD', to: 'ARS', amount: '100.50' }, rates: RATES },
    }),
    encode({
      ...common,
      id: `${operation}.result`,
      type: 'posta.operation.succeeded',
      data: {
        ...of,
        output: { amount: '147986.25', currency: 'ARS', rate: '1472.5', date, source },
        completedAt: createdAt,
      },
    }),
  ]
}

const TRACEPARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
const RATES: RateTable = {
  base: 'USD',
  date: '2026-11-23',
  source: 'live',
  rates: [
    { code: 'ARS', rate: '1472.5' },
    { code: 'USD', rate: '1' },
  ],
}
