import { Database } from 'bun:sqlite'
import { join } from 'node:path'
import type { Broker } from '../../common/broker/broker.ts'
import { openEmbedded } from '../../common/broker/embedded/embedded.ts'
import type { Outgoing } from '../../common/messages/message.ts'
import { systemDeps } from '../../common/service/deps.ts'
import { createLog } from '../../common/service/log.ts'
import { createMetrics } from '../../common/service/metrics.ts'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import { type Append, createAppend } from '../../monitor/events/append.ts'
import { receiveEvents } from '../../monitor/events/receive.ts'
import { openStore } from '../../monitor/store/store.ts'
import { loggedIn, NOON_MS, requested, succeeded } from '../../monitor/testing/messages.ts'
import { compare, type Figure, perSecond, timeMs } from './measure.ts'

const EVENTS = 100_000
const ROUNDS = 9
/** There is one more round, which does not count. */
const EVENTS_PER_ROUND = EVENTS / (ROUNDS + 1)
const EVENTS_PER_TRANSACTION = 500

/**
 * Monitor's ingest, from the embedded broker to rows that are durable, chained and indexed, over the insert of the same
 * rows alone into the same table with the same indexes. Both tables grow to 100,000 rows.
 */
export async function measureIngest(): Promise<readonly Figure[]> {
  const folder = temporaryFolder().path
  const [ingestedPath, rawPath] = [join(folder, 'ingested.db'), join(folder, 'raw.db')]
  const broker = openEmbedded({ path: join(folder, 'broker.db') })
  const [store, sameTables] = [openStore(`file:${ingestedPath}`), openStore(`file:${rawPath}`)]
  // A store makes its tables at its first call.
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
    const ingestedPerS = async () => {
      await publish(broker)
      return perSecond(EVENTS_PER_ROUND, await timeMs(() => ingest(broker, store)))
    }
    const insertedPerS = async () => {
      const given = rows.values(EVENTS_PER_ROUND).toReversed()
      const elapsedMs = await timeMs(() => {
        for (let start = 0; start < given.length; start += EVENTS_PER_TRANSACTION)
          insertAll.immediate(given.slice(start, start + EVENTS_PER_TRANSACTION))
      })
      return perSecond(EVENTS_PER_ROUND, elapsedMs)
    }
    const figure = { name: "monitor's ingest / the same rows inserted alone", aim: { atLeast: 0.5 } }
    return [
      await compare(figure, ROUNDS, [
        ['ingestedPerS', ingestedPerS],
        ['insertedPerS', insertedPerS],
      ]),
    ]
  } finally {
    await broker.close()
    await store.close()
    ingested.close()
    raw.close()
  }
}

/** Resolves when monitor has stored every message of this round. */
async function ingest(broker: Broker, store: ReturnType<typeof openStore>): Promise<void> {
  const append = createAppend(store.events)
  const complete = Promise.withResolvers<void>()
  let stored = 0
  const counted: Append = async (events, signal) => {
    await append(events, signal)
    stored += events.length
    if (stored === EVENTS_PER_ROUND) complete.resolve()
  }
  const consumer = receiveEvents({
    broker,
    append: counted,
    deadLetters: store.deadLetters,
    onStored: () => {},
    log: createLog('bench', 'silent'),
    metrics: createMetrics('bench'),
    deps: systemDeps,
  })
  await consumer.start()
  await Promise.race([complete.promise, consumer.ended])
  await consumer.close()
}

/** Publishes what a busy system does: logins, requests and results, one of each in turn. */
async function publish(broker: Broker): Promise<void> {
  for (let published = 0; published < EVENTS_PER_ROUND; published += EVENTS_PER_TRANSACTION) {
    const messages: Outgoing[] = []
    while (messages.length < EVENTS_PER_TRANSACTION) {
      const [id, user] = [systemDeps.newId(), `user-${messages.length % 100}`]
      const ms = Date.now() - NOON_MS
      messages.push(loggedIn(id, user, ms), requested(id, user, ms), succeeded(id, user, ms))
    }
    await broker.publish(messages.slice(0, EVENTS_PER_TRANSACTION))
  }
}
