import * as v from 'valibot'
import { call, expectBody } from '../../tools/client.ts'
import { startInProcess } from '../../tools/in-process.ts'
import { submissionOf } from '../testing/operations.ts'
import { embeddedParts, type Parts, realParts } from '../testing/parts.ts'
import { newUser } from '../testing/users.ts'
import { openEcho } from './kafka-echo.ts'
import { compare, type Figure, fdatasyncMeter, type Measure, median, timeMs } from './measure.ts'

const ROUNDS = 15
const TRIPS_PER_ROUND = 20

/**
 * What must be on the disk, one after the other, before a client has the result: gateway's operation, the broker's
 * request, processor's result, the broker's reply, gateway's operation again. Nobody waits for the other syncs (the
 * outbox, offsets, monitor's events).
 */
const SYNCS_ON_THE_WAY = 5

/** From submission to result for one client, over what the syncs on the way take alone. */
export async function measureEmbeddedRoundTrips(): Promise<readonly Figure[]> {
  const parts = await embeddedParts()
  const syncMs = fdatasyncMeter(parts.dataDir)
  const figure = { name: `submit to result, embedded / ${SYNCS_ON_THE_WAY} fdatasync`, aim: { atMost: 3 } }
  try {
    return [await compareTrips(parts, figure, ['syncsP50Ms', () => SYNCS_ON_THE_WAY * syncMs()])]
  } finally {
    await parts.dispose()
  }
}

/**
 * The same on Kafka and a MongoDB-wire server, over a message there and back by kafkajs alone, and one insert. FerretDB
 * scans a collection where MongoDB has an index, so there the figure grows with each round.
 */
export async function measureRealRoundTrips(): Promise<readonly Figure[]> {
  const parts = await realParts()
  const echo = await openEcho(parts)
  const figure = { name: 'submit to result, real parts / Kafka echo + insert', aim: { atMost: 1.5 } }
  try {
    return [await compareTrips(parts, figure, ['echoAndInsertP50Ms', () => timeMs(echo.thereAndBack)])]
  } finally {
    await echo.close()
    await parts.dispose()
  }
}

const Succeeded = v.object({ status: v.literal('succeeded') })

async function compareTrips(
  parts: Parts,
  figure: Pick<Figure, 'name' | 'aim'>,
  [name, theirs]: readonly [string, Measure],
): Promise<Figure> {
  const system = await startInProcess(parts.environment)
  try {
    const { token } = await newUser(system.gatewayUrl)
    const trip = async () => {
      const options = { token, body: submissionOf(), headers: { Prefer: 'wait=10' } }
      expectBody(await call('POST', `${system.gatewayUrl}/operations`, options), 200, Succeeded)
    }
    return await compare(figure, ROUNDS, [
      ['submitToResultP50Ms', () => p50(() => timeMs(trip))],
      [name, () => p50(theirs)],
    ])
  } finally {
    await system.close()
  }
}

async function p50(measure: Measure): Promise<number> {
  const times: number[] = []
  while (times.length < TRIPS_PER_ROUND) times.push(await measure())
  return median(times)
}
