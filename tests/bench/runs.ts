import { Database, type SQLQueryBindings } from 'bun:sqlite'
import { join } from 'node:path'
import type { Broker } from '../../common/broker/broker.ts'
import { openEmbedded as openBroker } from '../../common/broker/embedded/embedded.ts'
import { encode } from '../../common/messages/envelope.ts'
import { headerText, type Outgoing } from '../../common/messages/message.ts'
import type { Catalog } from '../../common/operations/catalog.ts'
import { systemDeps } from '../../common/service/deps.ts'
import { createLog } from '../../common/service/log.ts'
import { createMetrics } from '../../common/service/metrics.ts'
import { stepped } from '../../common/testing/sample.ts'
import { temporaryFolder } from '../../common/testing/temporary-folder.ts'
import type { Performer } from '../../processor/performers/performer.ts'
import { performers } from '../../processor/performers/performers.ts'
import { receiveRequests } from '../../processor/receive-requests.ts'
import { createRunner } from '../../processor/runs/runner.ts'
import { openEmbedded as openStore } from '../../processor/store/embedded.ts'
import { compare, type Figure, perSecond, timeMs } from './measure.ts'

const RUNS = 1000
const USERS = 100
const STEPS = 5
/** Each step, and the end. */
const RECORDS = RUNS * (STEPS + 1)
const ROUNDS = 3
const SYNCED_ALONE = 2000

/** Does in five steps nothing that takes time. */
const fiveSteps: Performer<Catalog[typeof stepped.type]> = {
  decide: () => ({ goOn: null }),
  async run({ step }) {
    for (let n = 0; n < STEPS; n++) await step(`step-${n}`, async () => ({ reference: `reference-${n}` }))
    return { output: stepped.output() }
  },
}

/**
 * Processor with 1,000 operations of five steps that come at once: records of steps and ends, from requests at the embedded
 * broker to replies there, over the same records inserted one after the other, each synced.
 */
export async function measureRuns(): Promise<readonly Figure[]> {
  const folder = temporaryFolder().path
  const [storePath, rawPath] = [join(folder, 'processor.db'), join(folder, 'raw.db')]
  const processor = await startProcessor(join(folder, 'broker.db'), storePath)
  const sameTables = openStore(rawPath)
  await sameTables.ping()
  await sameTables.close()
  const [stored, raw] = [new Database(storePath, { readonly: true }), new Database(rawPath)]
  raw.run('PRAGMA synchronous = FULL')
  const rows = stored.prepare<unknown, [number]>('SELECT run, n, body FROM run_records ORDER BY run DESC LIMIT ?')
  const insert = raw.prepare<unknown, SQLQueryBindings[]>('INSERT INTO run_records (run, n, body) VALUES (?, ?, ?)')

  try {
    const recordedPerS = async () => perSecond(RECORDS, await timeMs(() => processor.run(RUNS)))
    const syncedAlonePerS = async () => {
      const given = rows.values(SYNCED_ALONE)
      const elapsedMs = await timeMs(() => {
        for (const row of given) insert.run(...row)
      })
      return perSecond(given.length, elapsedMs)
    }
    const figure = { name: `records of ${RUNS} runs of ${STEPS} steps / synced one by one`, aim: { atLeast: 0.3 } }
    return [
      await compare(figure, ROUNDS, [
        ['recordedPerS', recordedPerS],
        ['syncedAlonePerS', syncedAlonePerS],
      ]),
    ]
  } finally {
    await processor.stop()
    stored.close()
    raw.close()
  }
}

/** What processor does with requests, without HTTP. */
async function startProcessor(brokerPath: string, storePath: string) {
  const broker = openBroker({ path: brokerPath })
  const store = openStore(storePath)
  let replies = 0
  let complete = Promise.withResolvers<void>()
  const counted: Broker = {
    ...broker,
    async publish(messages) {
      const placed = await broker.publish(messages)
      replies += messages.filter((message) => headerText(message, 'ce_type') === 'posta.operation.succeeded').length
      if (replies === RUNS) complete.resolve()
      return placed
    },
  }
  const common = {
    ...store,
    broker: counted,
    performers: { ...performers, [stepped.type]: fiveSteps },
    settings: new Map(),
    log: createLog('bench', 'warn'),
    metrics: createMetrics('bench'),
    deps: systemDeps,
  }
  const runner = createRunner(common)
  const consumer = receiveRequests({ ...common, bounds: new Map(), runner })
  await runner.start?.()
  await consumer.start()
  return {
    /** Resolves when so many new operations are answered. */
    async run(count: number): Promise<void> {
      replies = 0
      complete = Promise.withResolvers()
      await broker.publish(Array.from({ length: count }, (_, index) => requested(`user-${index % USERS}`)))
      await complete.promise
    },
    async stop() {
      await consumer.close()
      await runner.close?.(1000)
      await broker.close()
      await store.close()
    },
  }
}

function requested(user: string): Outgoing {
  const operation = systemDeps.newId()
  const createdAt = new Date().toISOString()
  return encode({
    id: operation,
    type: 'posta.operation.requested',
    time: createdAt,
    subject: operation,
    data: {
      user,
      operation,
      operationType: stepped.type,
      input: stepped.input(),
      facts: stepped.facts,
      createdAt,
    },
  })
}
