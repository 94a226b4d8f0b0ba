import { type ServiceName, serviceNames } from '../../common/name.ts'
import { createRandom, type Random } from './random.ts'

export type PartsKind = 'embedded' | 'real'

/** One of the processes that the run starts, by its service and number. */
export interface Target {
  readonly service: ServiceName
  readonly index: number
}

/**
 * Where a process kills itself: between which two steps of the way. `before-publish`: what is to be sent is stored, and
 * has not been sent; `after-publish`: the broker holds it, and nobody here knows; `handling`: while a batch is handled;
 * `before-offset`: the batch is done, and the group's offset has not moved; `before-dead-letter`: something is about to be
 * set aside.
 */
export const points = ['before-publish', 'after-publish', 'handling', 'before-offset', 'before-dead-letter'] as const
export type Point = (typeof points)[number]

/** Connections that lead through a proxy: who calls, and what. */
export const links = [
  'gateway-broker',
  'processor-broker',
  'monitor-broker',
  'processor-store',
  'monitor-store',
  'processor-gateway',
  'monitor-gateway',
] as const
export type Link = (typeof links)[number]

export type Fault =
  /** SIGKILL at any moment. */
  | { readonly kind: 'kill'; readonly target: Target }
  /** SIGKILL of the first process of the service that gets to the point. */
  | { readonly kind: `kill ${ServiceName} ${Point}`; readonly service: ServiceName; readonly point: Point }
  /** SIGTERM, and started again. */
  | { readonly kind: 'restart'; readonly target: Target }
  /** SIGSTOP, longer than leases and sessions last, and SIGCONT. */
  | { readonly kind: 'pause'; readonly target: Target }
  | { readonly kind: 'clock'; readonly target: Target; readonly shiftMs: number }
  /** No file of the process can grow, as on a disk that is full. */
  | { readonly kind: 'disk full'; readonly target: Target }
  /** One more process of the service comes and goes every few seconds. */
  | { readonly kind: 'replicas come and go'; readonly service: ServiceName }
  | { readonly kind: 'broker frozen' }
  | { readonly kind: 'broker killed' }
  | { readonly kind: 'broker restarted' }
  | { readonly kind: 'store away'; readonly service: 'processor' | 'monitor' }
  | { readonly kind: 'database locked' }
  | { readonly kind: 'topic made anew'; readonly topic: 'requests' | 'results' }
  | { readonly kind: 'latency' | 'resets' | 'half-open' | 'partition'; readonly link: Link }
  | { readonly kind: 'rates fail' | 'rates lie' }
  | { readonly kind: 'duplicates' | 'other order'; readonly service: ServiceName }
  | { readonly kind: 'poison' }
  /** Processor reads some requests wrongly, once: dead letters, which an operator redrives. */
  | { readonly kind: 'misread' }

export type FaultKind = Fault['kind']

export interface Injection {
  /** Lanes run side by side; within one, a fault begins when the one before has ended. */
  readonly lane: string
  /** From the beginning of the run. */
  readonly atMs: number
  readonly lastsMs: number
  readonly fault: Fault
}

export interface Plan {
  readonly parts: PartsKind
  readonly seed: string
  readonly lengthMs: number
  readonly replicas: Readonly<Record<ServiceName, number>>
  /** In the order of `atMs`. */
  readonly injections: readonly Injection[]
}

const HOUR_MS = 60 * 60 * 1000

const REPLICAS = 2

/** How long a fault lasts, and what it is. */
type Make = () => readonly [lastsMs: number, fault: Fault]
type Lane = Readonly<Partial<Record<FaultKind, Make>>>

/** Every kind of fault that the parts allow, by lane. */
function lanesOf(parts: PartsKind, lengthMs: number, random: Random): Readonly<Record<string, Lane>> {
  const target = (...services: readonly ServiceName[]): Target => ({
    service: random.pick(services),
    index: random.integer(0, REPLICAS - 1),
  })
  const anyone = () => target(...serviceNames)
  const any = () => random.pick(serviceNames)
  /** Half a minute where the run has room for it. */
  const awayMs = Math.min(30_000, lengthMs / 6)
  const at = (service: ServiceName, point: Point): Lane => {
    const kind = `kill ${service} ${point}` as const
    return { [kind]: () => [4000, { kind, service, point }] }
  }
  const net = (kind: 'latency' | 'resets' | 'half-open' | 'partition', lastsMs: number): Lane => ({
    [kind]: () => [lastsMs, { kind, link: random.pick(links) }],
  })
  const everywhere: Lane = {
    'broker frozen': () => [random.integer(7000, 12_000), { kind: 'broker frozen' }],
    'store away': () => [awayMs, { kind: 'store away', service: random.pick(['processor', 'monitor']) }],
    'database locked': () => [7000, { kind: 'database locked' }],
  }
  const onReal: Record<string, Lane> = {
    parts: {
      ...everywhere,
      'broker killed': () => [4000, { kind: 'broker killed' }],
      'broker restarted': () => [2000, { kind: 'broker restarted' }],
      'topic made anew': () => [8000, { kind: 'topic made anew', topic: random.pick(['requests', 'results']) }],
    },
    connections: {
      ...net('latency', 6000),
      ...net('resets', 4000),
      ...net('half-open', 9000),
      ...net('partition', 8000),
    },
  }
  return {
    crashes: {
      kill: () => [2000, { kind: 'kill', target: anyone() }],
      ...at('gateway', 'before-publish'),
      ...at('gateway', 'after-publish'),
      ...at('gateway', 'before-offset'),
      restart: () => [3000, { kind: 'restart', target: anyone() }],
    },
    'crashes behind gateway': {
      ...at('processor', 'before-publish'),
      ...at('processor', 'before-offset'),
      ...at('processor', 'before-dead-letter'),
      ...at('monitor', 'handling'),
      ...at('monitor', 'before-offset'),
    },
    stalls: {
      pause: () => [random.integer(8000, Math.min(25_000, 6000 + awayMs)), { kind: 'pause', target: anyone() }],
      clock: () => [5000, { kind: 'clock', target: anyone(), shiftMs: random.pick([HOUR_MS, -HOUR_MS]) }],
      'disk full': () => [4000, { kind: 'disk full', target: parts === 'real' ? target('gateway') : anyone() }],
      'replicas come and go': () => [9000, { kind: 'replicas come and go', service: any() }],
    },
    ...(parts === 'embedded' ? { parts: everywhere } : onReal),
    messages: {
      'rates fail': () => [6000, { kind: 'rates fail' }],
      'rates lie': () => [6000, { kind: 'rates lie' }],
      duplicates: () => [5000, { kind: 'duplicates', service: any() }],
      'other order': () => [5000, { kind: 'other order', service: any() }],
      poison: () => [1000, { kind: 'poison' }],
      misread: () => [4000, { kind: 'misread' }],
    },
  }
}

/**
 * All that a run will do, from its seed alone. Each lane goes round and round: every kind of fault once in each round, in
 * an order of chance. `only`: no other kinds than these.
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
  for (const [lane, makes] of Object.entries(lanesOf(parts, lengthMs, random.fork('faults')))) {
    const chance = random.fork(lane)
    const kinds = Object.entries(makes).flatMap(([kind, make]) =>
      !only || only.some((each) => each === kind) ? [make] : [],
    )
    // What everything stands on gets some time between two faults, or nothing would get done at all.
    const longestPauseMs = lane === 'parts' || lane === 'connections' ? 4000 : 1500
    let atMs = chance.integer(500, 1500)
    let round: Make[] = []
    for (;;) {
      if (round.length === 0) round = chance.shuffle(kinds)
      const next = round.shift()?.()
      if (!next) break
      const [lastsMs, fault] = next
      if (atMs + lastsMs > lengthMs) break
      injections.push({ lane, atMs, lastsMs, fault })
      atMs += lastsMs + chance.integer(500, longestPauseMs)
    }
  }
  return {
    parts,
    seed,
    lengthMs,
    replicas: { gateway: REPLICAS, processor: REPLICAS, monitor: REPLICAS },
    injections: injections.sort((a, b) => a.atMs - b.atMs),
  }
}

/** One line for each injection: the whole plan, for people. */
export function describePlan(plan: Plan): string {
  const lines = plan.injections.map(({ atMs, lastsMs, fault }) => {
    const { kind, ...rest } = fault
    const details = Object.values(rest)
      .map((each) => (typeof each === 'object' ? `${each.service} ${each.index}` : String(each)))
      .filter((each) => !kind.includes(each))
    return `${seconds(atMs)} to ${seconds(atMs + lastsMs)}  ${[kind, ...details].join(', ')}`
  })
  return [`${plan.parts} parts, seed ${plan.seed}, ${plan.lengthMs / 1000} s:`, ...lines].join('\n')
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1).padStart(7)} s`
}
