// Runs the measurement that the argument names, and sends its figures to the process that started this one.
import { measureIngest } from './ingest.ts'
import { measureLogins } from './logins.ts'
import { measureEmbeddedRoundTrips, measureRealRoundTrips } from './round-trips.ts'
import { measureRuns } from './runs.ts'
import { measureSleepingRuns } from './sleeping-runs.ts'
import { measureSubmissions } from './submissions.ts'

const measurements = {
  logins: measureLogins,
  submissions: measureSubmissions,
  'round-trips': measureEmbeddedRoundTrips,
  'real-round-trips': measureRealRoundTrips,
  ingest: measureIngest,
  runs: measureRuns,
  'sleeping-runs': measureSleepingRuns,
}

export type MeasurementName = keyof typeof measurements
export const measurementNames = Object.keys(measurements) as MeasurementName[]

if (import.meta.main) {
  const name = measurementNames.find((each) => each === process.argv[2])
  if (!name) throw new Error(`There are ${measurementNames.join(', ')}.`)
  process.send?.(await measurements[name]())
  process.exit(0)
}
