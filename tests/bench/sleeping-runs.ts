import { join } from 'node:path'
import * as v from 'valibot'
import { systemDeps } from '../../common/service/deps.ts'
import { run } from '../../common/service/run.ts'
import { stepped } from '../../common/testing/sample.ts'
import { processor } from '../../processor/processor.ts'
import type { Run, RunRecord } from '../../processor/runs/runs.ts'
import { openEmbedded } from '../../processor/store/embedded.ts'
import { embeddedParts } from '../testing/parts.ts'
import { spawnService } from '../testing/service-processes.ts'
import { type Figure, median } from './measure.ts'

const RUNS = 10_000
const RUNS_AT_ONCE = 500
const USERS = 1000
const HOUR_MS = 60 * 60 * 1000
const ROUNDS = 3
const ROUND_MS = 10_000

/**
 * A processor whose store has 10,000 runs that wait for an answer or a time, beside one whose store has none: what both take
 * of the CPU for 30 s in which nothing is due, and their memory after that, without garbage.
 */
export async function measureSleepingRuns(): Promise<readonly Figure[]> {
  const [sleeping, empty] = [await startProcessor(RUNS), await startProcessor(0)]
  try {
    const rounds: { readonly sleepingMs: number; readonly emptyMs: number }[] = []
    // The first one does not count.
    for (let round = 0; round <= ROUNDS; round++) {
      const before = await Promise.all([sleeping.usage(), empty.usage()])
      await Bun.sleep(ROUND_MS)
      const after = await Promise.all([sleeping.usage(), empty.usage()])
      if (round === 0) continue
      rounds.push({ sleepingMs: after[0].cpuMs - before[0].cpuMs, emptyMs: after[1].cpuMs - before[1].cpuMs })
    }
    const [{ rssMB: sleepingMB }, { rssMB: emptyMB }] = await Promise.all([sleeping.usage(), empty.usage()])
    return [
      {
        name: `CPU with ${RUNS} sleeping runs / with none`,
        ratio: median(rounds.map(({ sleepingMs, emptyMs }) => sleepingMs / emptyMs)),
        aim: { atMost: 1.1 },
        of: {
          sleepingMsPerS: perS(rounds.map(({ sleepingMs }) => sleepingMs)),
          emptyMsPerS: perS(rounds.map(({ emptyMs }) => emptyMs)),
        },
      },
      {
        name: `memory with ${RUNS} sleeping runs / with none`,
        ratio: sleepingMB / emptyMB,
        aim: { atMost: 1.1 },
        of: { sleepingMB, emptyMB },
      },
    ]
  } finally {
    await Promise.all([sleeping.stop(), empty.stop()])
  }
}

const perS = (msPerRound: readonly number[]) => (median(msPerRound) / ROUND_MS) * 1000

const Usage = v.object({ cpuMs: v.number(), rssMB: v.number() })

/** Starts processor in a process of its own, on embedded parts, with so many runs in its store that wait. */
async function startProcessor(runs: number) {
  const parts = await embeddedParts()
  await fill(join(parts.dataDir, 'processor.db'), runs)
  let answered = Promise.withResolvers<unknown>()
  const ready = answered.promise
  const { process, ended } = spawnService({
    program: [import.meta.path],
    environment: { ...parts.environment, LOG_LEVEL: 'warn' },
    onMessage: (message) => answered.resolve(message),
  })
  const died = ended.then((end) => Promise.reject(new Error(`Processor ended: ${end}.`)))
  died.catch(() => {})
  await Promise.race([ready, died])
  return {
    async usage() {
      answered = Promise.withResolvers()
      process.send('usage')
      return v.parse(Usage, await Promise.race([answered.promise, died]))
    },
    async stop() {
      process.kill('SIGTERM')
      await ended
      await parts.dispose()
    },
  }
}

async function fill(path: string, count: number): Promise<void> {
  const store = openEmbedded(path)
  for (let stored = 0; stored < count; stored += RUNS_AT_ONCE) {
    const runs = Array.from({ length: Math.min(RUNS_AT_ONCE, count - stored) }, (_, index) => waiting(stored + index))
    await store.runs.create(runs)
    await store.runs.append(
      runs.map(({ id, decidedAtMs, head }) => ({ run: id, record: wait(decidedAtMs, head.dueAtMs) })),
    )
  }
  await store.close()
}

/** The first one is due in an hour, and then two each second. */
function waiting(index: number): Run {
  const nowMs = Date.now()
  return {
    id: systemDeps.newId(),
    user: `user-${index % USERS}`,
    type: stepped.type,
    version: 1,
    input: stepped.input(2000),
    facts: stepped.facts,
    createdAt: new Date(nowMs).toISOString(),
    decidedAtMs: nowMs,
    decided: null,
    position: { partition: 0, offset: index, timestampMs: nowMs },
    head: {
      state: 'waiting',
      epoch: 1,
      dueAtMs: nowMs + HOUR_MS + index * 500,
      step: 'approve',
      forSignal: index % 2 === 0,
      attempts: 0,
      failures: 0,
      published: 1,
    },
  }
}

function wait(atMs: number, untilMs: number): RunRecord {
  return { n: 0, atMs, kind: 'waiting', step: 'approve', untilMs, forSignal: true }
}

if (import.meta.main) {
  process.on('message', () => {
    const { user, system } = process.cpuUsage()
    Bun.gc(true)
    process.send?.({ cpuMs: (user + system) / 1000, rssMB: process.memoryUsage.rss() / 1024 ** 2 })
  })
  await run(processor)
}
