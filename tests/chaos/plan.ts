import { type Fault, type FaultKind, faultLanes } from './faults.ts'
import type { PartsKind } from './parts.ts'
import { createRandom } from './random.ts'

export interface Injection extends Fault {
  readonly kind: string
  readonly lane: string
  /** From the beginning of the run. */
  readonly atMs: number
}

export interface Plan {
  readonly parts: PartsKind
  readonly seed: string
  readonly lengthMs: number
  /** In the order of `atMs`. */
  readonly injections: readonly Injection[]
}

/**
 * All that a run will do, which follows from its seed alone. Each lane goes round and round, with every kind of fault
 * once in each round, in random order. `only`: no other kinds than these.
 */
export function createPlan(options: {
  parts: PartsKind
  seed: string
  lengthMs: number
  only?: readonly FaultKind[] | undefined
}): Plan {
  const { parts, seed, lengthMs, only } = options
  const random = createRandom(`${seed}/${parts}`)
  const injections: Injection[] = []
  for (const [lane, makers] of Object.entries(faultLanes(parts, lengthMs, random.fork('faults')))) {
    const laneRandom = random.fork(lane)
    const kinds = Object.entries<() => Fault>(makers).filter(([kind]) => !only || only.some((each) => each === kind))
    // Everything depends on parts and connections: without longer pauses between their faults nothing would get done.
    const longestPauseMs = lane === 'parts' || lane === 'connections' ? 4000 : 1500
    let atMs = laneRandom.integer(500, 1500)
    let round: typeof kinds = []
    for (;;) {
      if (round.length === 0) round = laneRandom.shuffle(kinds)
      const [kind, make] = round.shift() ?? []
      if (!kind || !make) break
      const fault = make()
      if (atMs + fault.lastsMs > lengthMs) break
      injections.push({ ...fault, kind, lane, atMs })
      atMs += fault.lastsMs + laneRandom.integer(500, longestPauseMs)
    }
  }
  return { parts, seed, lengthMs, injections: injections.sort((a, b) => a.atMs - b.atMs) }
}

/** The whole plan for people, with one line for each injection. */
export function describePlan({ parts, seed, lengthMs, injections }: Plan): string {
  const lines = injections.map(
    ({ atMs, lastsMs, kind, details }) =>
      `${seconds(atMs)} to ${seconds(atMs + lastsMs)}  ${[kind, ...details].join(', ')}`,
  )
  return [`${parts} parts, seed ${seed}, ${lengthMs / 1000} s:`, ...lines].join('\n')
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1).padStart(7)} s`
}
