import { setTimeout as sleep } from 'node:timers/promises'
import type { Victims } from './faults.ts'
import type { Plan } from './plan.ts'

/** By kind: how often a fault was injected, and how often it could not be. */
export type Injected = Map<string, { injected: number; missed: number }>

/** Injects what the plan says, lane by lane. Resolves when the last fault is over. */
export async function injectAll(plan: Plan, victims: Victims, log: (line: string) => void): Promise<Injected> {
  const counts: Injected = new Map()
  const startMs = performance.now()
  const lanes = Map.groupBy(plan.injections, ({ lane }) => lane)
  const injecting = [...lanes.values()].map(async (injections) => {
    for (const { kind, atMs, lastsMs, inject } of injections) {
      await sleep(Math.max(0, startMs + atMs - performance.now()))
      // Where faults took longer than planned, the last ones are left out, so that the run keeps its length.
      if (performance.now() - startMs > plan.lengthMs) return
      const count = counts.get(kind) ?? { injected: 0, missed: 0 }
      counts.set(kind, count)
      const result = await inject(victims, lastsMs).catch((error: unknown) => {
        log(`${kind} could not be injected: ${error}`)
        return false
      })
      count[result === false ? 'missed' : 'injected'] += 1
    }
  })
  await Promise.all(injecting)
  return counts
}
