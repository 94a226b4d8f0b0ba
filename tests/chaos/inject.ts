import { setTimeout as sleep } from 'node:timers/promises'
import { topics } from '../../common/messages/topics.ts'
import type { ServiceName } from '../../common/name.ts'
import type { FakeApi } from '../../gateway/testing/fake-rates-api.ts'
import type { Trouble } from './broken-broker.ts'
import type { Fleet, Member } from './fleet.ts'
import type { ChaosParts } from './parts.ts'
import type { Injection, Plan } from './plan.ts'
import { poisonAll } from './poison.ts'
import type { Random } from './random.ts'
import type { Poison } from './snapshot.ts'

/** All that faults are done to, and with. */
export interface Victims {
  readonly fleet: Fleet
  readonly parts: ChaosParts
  readonly rates: FakeApi
  readonly poison: Poison[]
  readonly random: Random
  /** Sends a dead letter's message again, as an operator. */
  readonly redrive: () => Promise<void>
  readonly log: (line: string) => void
}

/** By kind, how often a fault was injected, and how often it could not be: a point that nobody reached in time. */
export type Injected = Map<string, { injected: number; missed: number }>

/** A point that nobody comes to for so long, while other faults are in the way, is given up. */
const REACHED_WITHIN_MS = 25_000
/** More than the pause between two looks at what is pending. */
const SWEEP_MS = 6000

/** Injects what the plan says, lane by lane. Resolves when the last fault is over. */
export async function injectAll(plan: Plan, victims: Victims): Promise<Injected> {
  const injected: Injected = new Map()
  const startMs = performance.now()
  const lanes = Map.groupBy(plan.injections, ({ lane }) => lane)
  const work = [...lanes.values()].map(async (injections) => {
    for (const injection of injections) {
      await sleep(Math.max(0, startMs + injection.atMs - performance.now()))
      // A fault before this one took longer than planned: the run keeps its length, and does without the last ones.
      if (performance.now() - startMs > plan.lengthMs) return
      const count = injected.get(injection.fault.kind) ?? { injected: 0, missed: 0 }
      injected.set(injection.fault.kind, count)
      const done = await inject(injection, victims).catch((error: unknown) => {
        victims.log(`${injection.fault.kind} could not be injected: ${error}`)
        return false
      })
      if (done) count.injected += 1
      else count.missed += 1
    }
  })
  await Promise.all(work)
  return injected
}

/** Resolves when it is over, to whether it came about. */
async function inject({ fault, lastsMs }: Injection, victims: Victims): Promise<boolean> {
  const { fleet, parts, rates } = victims
  if ('point' in fault) return dieAt(fleet, fault.service, fault.point, lastsMs)
  switch (fault.kind) {
    case 'kill':
      await fleet.member(fault.target).kill()
      return true
    case 'restart': {
      const member = fleet.member(fault.target)
      await member.down()
      await member.up()
      return true
    }
    case 'pause': {
      const goOn = fleet.member(fault.target).pause()
      await sleep(lastsMs)
      goOn()
      return true
    }
    case 'clock':
      fleet.member(fault.target).order({ shiftMs: fault.shiftMs })
      await sleep(lastsMs)
      fleet.member(fault.target).order({ shiftMs: 0 })
      return true
    case 'disk full':
      return fillDisk(fleet.member(fault.target), lastsMs)
    case 'replicas come and go':
      await comeAndGo(victims, fault.service, lastsMs)
      return true
    case 'broker frozen':
      await parts.freezeBroker(lastsMs)
      return true
    case 'broker killed':
      await parts.killBroker(lastsMs)
      return true
    case 'broker restarted':
      await parts.restartBroker()
      return true
    case 'store away':
      await parts.takeStoreAway(fault.service, lastsMs)
      return true
    case 'database locked':
      await parts.lockDatabase(lastsMs)
      return true
    case 'topic made anew':
      await parts.remakeTopic(topics[fault.topic])
      await sendAgain(fleet, 3 * 60_000, () => sleep(SWEEP_MS))
      return true
    case 'latency':
    case 'resets':
    case 'half-open':
    case 'partition':
      await parts.hurt(fault.link, fault.kind, lastsMs)
      return true
    case 'rates fail':
      rates.behave('down', 'busy', 'slow', 'not-found', 'stalled', 'down')
      await sleep(lastsMs)
      rates.behave('ok')
      return true
    case 'rates lie':
      rates.behave('negative', 'zero', 'nan', 'null-rate', 'wrong-shape', 'other-base', 'not-json', 'huge', 'redirect')
      await sleep(lastsMs)
      rates.behave('ok')
      return true
    case 'duplicates':
      await troubled(fleet, fault.service, { duplicates: true }, { duplicates: false }, lastsMs)
      return true
    case 'other order':
      await troubled(fleet, fault.service, { otherOrder: true }, { otherOrder: false }, lastsMs)
      return true
    case 'poison':
      await poisonAll(parts, victims.poison, victims.random)
      return true
    case 'misread': {
      const before = fleet.misread.length
      for (const member of fleet.members('processor')) member.order({ trouble: { misread: 2 } })
      const deadlineMs = performance.now() + Math.max(lastsMs, REACHED_WITHIN_MS)
      while (performance.now() < deadlineMs && fleet.misread.length === before) await sleep(50)
      for (const member of fleet.members('processor')) member.order({ trouble: { misread: 0 } })
      await sleep(500)
      await victims.redrive()
      return fleet.misread.length > before
    }
  }
}

/** The first process of the service that gets to the point kills itself there. */
async function dieAt(
  fleet: Fleet,
  service: ServiceName,
  point: NonNullable<Trouble['killAt']>,
  withinMs: number,
): Promise<boolean> {
  const members = fleet.members(service)
  for (const member of members) member.arm(point)
  if (point === 'before-dead-letter') for (const member of members) member.order({ trouble: { misread: 1 } })
  const deadlineMs = performance.now() + Math.max(withinMs, REACHED_WITHIN_MS)
  while (performance.now() < deadlineMs && !members.some((member) => member.died())) await sleep(5)
  const died = members.map((member) => member.disarm())
  for (const member of members) member.order({ trouble: { misread: 0 } })
  await Promise.all(members.filter((_, index) => died[index]).map((member) => member.up()))
  return died.includes(true)
}

async function troubled(
  fleet: Fleet,
  service: ServiceName,
  trouble: Partial<Trouble>,
  over: Partial<Trouble>,
  lastsMs: number,
): Promise<void> {
  for (const member of fleet.members(service)) member.order({ trouble })
  await sleep(lastsMs)
  for (const member of fleet.members(service)) member.order({ trouble: over })
}

async function comeAndGo({ fleet }: Victims, service: ServiceName, lastsMs: number): Promise<void> {
  const known = fleet.members(service).find(({ extra }) => extra)
  const extra = known ?? (await fleet.add(service))
  const untilMs = performance.now() + lastsMs
  while (performance.now() < untilMs) {
    await extra.up()
    await sleep(1500)
    await extra.down()
  }
}

/** No file of the process can grow beyond a few pages. */
async function fillDisk(member: Member, lastsMs: number): Promise<boolean> {
  const pid = member.pid()
  if (pid === undefined) return false
  await limitFiles(pid, String(64 * 1024))
  await sleep(lastsMs)
  // It may have ended meanwhile, and then there is nothing to lift.
  await limitFiles(pid, 'unlimited').catch(() => {})
  return true
}

async function limitFiles(pid: number, soft: string): Promise<void> {
  const limit = Bun.spawn(['prlimit', '--pid', String(pid), `--fsize=${soft}:unlimited`], {
    stdio: ['ignore', 'ignore', 'ignore'],
  })
  if ((await limit.exited) !== 0) throw new Error('The limit of file sizes could not be set.')
}

/**
 * Sends again what has been pending, as far as `until`: what a topic took with it when it was deleted. Gateways do that
 * after minutes; here they believe that these are over.
 */
export async function sendAgain(fleet: Fleet, laterMs: number, until: () => Promise<unknown>): Promise<void> {
  const shift = (shiftMs: number) => {
    for (const member of fleet.members('gateway')) member.order({ shiftMs })
  }
  shift(laterMs)
  await until()
  shift(0)
}
