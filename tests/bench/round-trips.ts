import * as v from 'valibot'
import { call, expectBody } from '../../tools/client.ts'
import { startInProcess } from '../../tools/in-process.ts'
import { embeddedParts, newUser, type Parts, realParts } from '../system/system.ts'
import { openEcho } from './kafka-echo.ts'
import { type Compared, type Figure, fdatasyncMeter, inTurn, median, timeMs } from './measure.ts'

const ROUNDS = 15
const TRIPS_PER_ROUND = 20

/**
 * What must be on the disk, one after the other, before a client has the result: gateway's operation, the broker's
 * request, processor's result, the broker's reply, gateway's operation again. What is synced beside these (the outbox's
 * row that goes, offsets, monitor's events) nobody waits for.
 */
const SYNCS_ON_THE_WAY = 5

/** From submission to result for one client, over what the syncs on the way take alone. */
export async function measureEmbeddedRoundTrips(): Promise<readonly Figure[]> {
  const parts = await embeddedParts()
  try {
    const syncMs = fdatasyncMeter(parts.dataDir)
    const { ratio, ours, theirs } = await compareTrips(parts, () => SYNCS_ON_THE_WAY * syncMs())
    return [
      {
        name: `submit to result, embedded / ${SYNCS_ON_THE_WAY} fdatasync`,
        ratio,
        aim: { atMost: 3 },
        of: { submitToResultP50Ms: ours, syncsP50Ms: theirs },
      },
    ]
  } finally {
    await parts.dispose()
  }
}

/**
 * The same on Kafka and a MongoDB-wire server, over a message there and back by kafkajs alone, and one insert. FerretDB
 * looks through all that is stored where MongoDB has an index: there the figure grows with each round.
 */
export async function measureRealRoundTrips(): Promise<readonly Figure[]> {
  const parts = await realParts()
  const echo = await openEcho(parts)
  try {
    const { ratio, ours, theirs } = await compareTrips(parts, () => timeMs(echo.thereAndBack))
    return [
      {
        name: 'submit to result, real parts / Kafka echo + insert',
        ratio,
        aim: { atMost: 1.5 },
        of: { submitToResultP50Ms: ours, echoAndInsertP50Ms: theirs },
      },
    ]
  } finally {
    await echo.close()
    await parts.dispose()
  }
}

const Succeeded = v.object({ status: v.literal('succeeded') })

async function compareTrips(parts: Parts, theirs: () => number | Promise<number>): Promise<Compared> {
  const system = await startInProcess(parts.environment)
  try {
    const { token } = await newUser(system.gatewayUrl)
    const body = { type: 'convert', input: { from: 'USD', to: 'ARS', amount: '1' } }
    const trip = async () => {
      const options = { token, body, headers: { Prefer: 'wait=10' } }
      expectBody(await call('POST', `${system.gatewayUrl}/operations`, options), 200, Succeeded)
    }
    return await inTurn(
      ROUNDS,
      () => p50(() => timeMs(trip)),
      () => p50(theirs),
    )
  } finally {
    await system.close()
  }
}

async function p50(measure: () => number | Promise<number>): Promise<number> {
  const times: number[] = []
  while (times.length < TRIPS_PER_ROUND) times.push(await measure())
  return median(times)
}
