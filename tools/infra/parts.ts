import { join } from 'node:path'
import { infraDirectory } from './build.ts'
import { composeCommand, startCompose } from './compose.ts'
import { missingForFerretdb, startFerretdb } from './ferretdb.ts'
import { missingForKafka, startKafka } from './kafka.ts'

/** A real broker and a real document store, by whichever way this machine can run them. */
export interface Parts {
  /** What runs, in words for a person. */
  what: string
  /** Absent when something that the broker needs is missing here. */
  brokerUrl?: string
  /** Without a database's name. Absent when something that the store needs is missing here. */
  mongoUrl?: string
  /** The folder for files that go with this broker's and this store's data. */
  dataDir: string
  /** What to install so that everything runs; empty when everything does. */
  missing: string[]
  stop(): Promise<void>
}

/** What this machine lacks to run the real parts without Docker, in words for a person; empty when nothing is missing. */
export function missingTools(): string[] {
  return [...missingForKafka(), ...missingForFerretdb()]
}

/**
 * Starts what can run here; `missing` says what could not, and why.
 * @param temporary true: free ports, and the data is removed at the end, for tests. False: the usual ports if they are
 * free, and the data stays.
 * @param native without Docker, even if an engine answers
 */
export async function startParts({
  temporary,
  native = false,
}: {
  temporary: boolean
  native?: boolean
}): Promise<Parts> {
  const data = join(infraDirectory, 'data')
  const compose = native ? undefined : composeCommand()
  if (compose) {
    const what = 'Redpanda and MongoDB by Docker Compose; Redpanda Console at http://localhost:8080'
    const started = await startCompose(compose, temporary)
    return { what, dataDir: join(data, 'compose'), missing: [], ...started }
  }
  const at = (port: number, folder: string) => (temporary ? {} : { port, directory: join(data, folder) })
  // If the second one fails to start, the first is stopped.
  await using starting = new AsyncDisposableStack()
  const kafka = missingForKafka().length === 0 ? await startKafka(at(9092, 'kafka')) : undefined
  starting.defer(async () => kafka?.stop())
  const mongo = missingForFerretdb().length === 0 ? await startFerretdb(at(27017, 'ferretdb')) : undefined
  starting.defer(async () => mongo?.stop())
  const started = starting.move()
  return {
    what: 'Apache Kafka 4.3.0 and FerretDB 1.24.2, without Docker',
    ...(kafka && { brokerUrl: kafka.url }),
    ...(mongo && { mongoUrl: mongo.url }),
    dataDir: data,
    missing: missingTools(),
    stop: () => started.disposeAsync(),
  }
}
