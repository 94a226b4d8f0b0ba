import { join } from 'node:path'
import { infraDirectory } from './build.ts'
import { composeCommand, startCompose } from './compose.ts'
import { missingForFerretdb, startFerretdb } from './ferretdb.ts'
import { missingForKafka, startKafka } from './kafka.ts'

/** A real broker and a real document store, by whichever way this machine can run them. */
export interface Parts {
  /** Words for a person: what runs. */
  what: string
  /** Absent when what the broker needs is missing here. */
  brokerUrl?: string
  /** Without a database's name. Absent when what the store needs is missing here. */
  mongoUrl?: string
  /** What to install so that everything runs; empty when everything does. */
  missing: string[]
  stop(): Promise<void>
}

export interface PartsOptions {
  /** True for tests: free ports and data that is gone at the end. False keeps the data, on the usual ports if they are free. */
  temporary: boolean
  /** Without Docker, though an engine answers. */
  native?: boolean
}

/** What this machine lacks to run the real parts without Docker, in words for a person; empty when nothing is missing. */
export function missingTools(): string[] {
  return [...missingForKafka(), ...missingForFerretdb()]
}

/** Starts what can be started here; what cannot is absent from the answer, and `missing` says why. */
export async function startParts({ temporary, native = false }: PartsOptions): Promise<Parts> {
  const compose = native ? undefined : composeCommand()
  if (compose) {
    const started = await startCompose(compose, temporary)
    return {
      what: 'Redpanda and MongoDB by Docker Compose; Redpanda Console at http://localhost:8080',
      missing: [],
      ...started,
    }
  }
  const at = (port: number, folder: string) =>
    temporary ? {} : { port, directory: join(infraDirectory, 'data', folder) }
  // One after the other: if the second fails to start, the first is stopped before anyone hears of it.
  const kafka = missingForKafka().length === 0 ? await startKafka(at(9092, 'kafka')) : undefined
  const stopAll = async (...servers: ({ stop(): Promise<void> } | undefined)[]) => {
    await Promise.all(servers.map((server) => server?.stop()))
  }
  try {
    const mongo = missingForFerretdb().length === 0 ? await startFerretdb(at(27017, 'ferretdb')) : undefined
    return {
      what: 'Apache Kafka 4.3.0 and FerretDB 1.24.2, without Docker',
      missing: missingTools(),
      ...(kafka && { brokerUrl: kafka.url }),
      ...(mongo && { mongoUrl: mongo.url }),
      stop: () => stopAll(kafka, mongo),
    }
  } catch (error) {
    await stopAll(kafka)
    throw error
  }
}
