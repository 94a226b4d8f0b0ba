// `bun run bench [--only NAME] [--json]`: how fast the system is. Each figure is the ratio of two things that are
// measured in turn, on the same machine in the same minute, so that it tells of the system more than of the machine.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import * as v from 'valibot'
import { NAME } from '../../common/name.ts'
import { startParts } from '../../tools/infra/parts.ts'
import { Figure } from './measure.ts'
import { type MeasurementName, measurementNames } from './run-one.ts'

const TIME_LIMIT_MS = 90_000

const stopping = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stopping.abort())

/** The figures, or why there are none. */
type Outcome = { readonly figures: readonly Figure[] } | { readonly skipped: string } | { readonly failed: string }

async function measure(name: MeasurementName): Promise<Outcome> {
  if (name !== 'real-round-trips' || (process.env.TEST_BROKER_URL && process.env.TEST_MONGO_URL)) return runOne(name)
  const { brokerUrl, mongoUrl, missing, stop } = await startParts({ temporary: true })
  try {
    if (!brokerUrl || !mongoUrl) return { skipped: `install ${missing.join(' and ')}` }
    return await runOne(name, { TEST_BROKER_URL: brokerUrl, TEST_MONGO_URL: mongoUrl })
  } finally {
    await stop()
  }
}

/** Runs it in a process and a temporary folder of its own, with an empty heap and a time limit, and leaves nothing. */
async function runOne(name: MeasurementName, environment: Record<string, string> = {}): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), `${NAME}-bench-`))
  let figures: unknown
  try {
    const child = Bun.spawn([process.execPath, `${import.meta.dir}/run-one.ts`, name], {
      env: { ...process.env, ...environment, TMPDIR: folder },
      stdio: ['ignore', 'inherit', 'inherit'],
      timeout: TIME_LIMIT_MS,
      // What it started ends with it.
      killSignal: 'SIGKILL',
      signal: stopping.signal,
      ipc(message) {
        figures = message
      },
    })
    const code = await child.exited
    stopping.signal.throwIfAborted()
    if (child.signalCode === 'SIGKILL')
      return { failed: `it took more than ${TIME_LIMIT_MS / 1000} s; try again when the machine has less to do` }
    if (code !== 0) return { failed: 'see its error above' }
    return { figures: v.parse(v.array(Figure), figures) }
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
  }
}

function row({ name, ratio, aim, of }: Figure): string {
  const [words, bound] = 'atLeast' in aim ? ['at least', aim.atLeast] : ['at most', aim.atMost]
  const met = 'atLeast' in aim ? ratio >= bound : ratio <= bound
  const parts = Object.entries(of).map(([part, value]) => `${part} ${Number(value.toPrecision(3))}`)
  const figure = `${name.padEnd(52)} ${ratio.toFixed(3).padStart(7)}  ${met ? 'met   ' : 'MISSED'}`
  return `${figure}  ${words} ${bound}  (${parts.join(', ')})`
}

const { values } = parseArgs({ options: { only: { type: 'string' }, json: { type: 'boolean', default: false } } })
const names = measurementNames.filter((name) => values.only === undefined || name === values.only)
if (names.length === 0) {
  console.error(`--only takes one of ${measurementNames.join(', ')}.`)
  process.exit(1)
}
const outcomes: Partial<Record<MeasurementName, Outcome>> = {}
try {
  for (const name of names) {
    const outcome = await measure(name)
    outcomes[name] = outcome
    if ('figures' in outcome) for (const figure of outcome.figures) console.log(row(figure))
    else if ('skipped' in outcome) console.log(`${name} was skipped: ${outcome.skipped}.`)
    else console.error(`${name} could not be measured: ${outcome.failed}.`)
    if ('failed' in outcome) process.exitCode = 1
  }
  if (values.json) console.log(JSON.stringify(outcomes, null, 2))
} catch (error) {
  console.error(stopping.signal.aborted ? 'Stopped.' : error)
  process.exitCode = 1
}
