import { setTimeout as sleep } from 'node:timers/promises'
import { topics } from '../../common/messages/topics.ts'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { eventually } from '../../common/testing/eventually.ts'
import type { Behaviour, FakeApi } from '../../gateway/testing/fake-rates-api.ts'
import { type Fleet, type Member, REPLICAS, type Target } from './fleet.ts'
import type { Order, Point, Trouble } from './orders.ts'
import { type ChaosParts, type LinkFault, links, type PartsKind } from './parts.ts'
import { publishPoison } from './poison.ts'
import type { Random } from './random.ts'
import type { Poison } from './snapshot.ts'

/** What faults are done to, and with. */
export interface Victims {
  readonly fleet: Fleet
  readonly parts: ChaosParts
  readonly rates: FakeApi
  /** The poison that was published so far. */
  readonly poison: Poison[]
  readonly random: Random
  /** Redrives dead letters, as an operator. */
  readonly redrive: () => Promise<void>
}

export interface Fault {
  readonly lastsMs: number
  /** Whom or what it meets, for a person. */
  readonly details: readonly (string | number)[]
  /** Resolves when the fault is over; to false where it did not come about. */
  readonly inject: (victims: Victims, lastsMs: number) => Promise<unknown>
}

type Lanes = ReturnType<typeof faultLanes>
type KindsOf<Each> = Each extends unknown ? { [Name in keyof Each]: keyof Each[Name] }[keyof Each] : never
export type FaultKind = KindsOf<Lanes>

const HOUR_MS = 60 * 60 * 1000
/** A point that no process reaches for so long, while other faults are in the way, is given up. */
const REACHED_WITHIN_MS = 25_000
/** Longer than gateway pauses between two looks at what is pending. */
const SWEEP_MS = 6000

/** Every kind of fault that the parts allow. Lanes run side by side; within one, a fault begins after the one before. */
export function faultLanes(kind: PartsKind, lengthMs: number, random: Random) {
  const fault = (lastsMs: number, inject: Fault['inject'], ...details: Fault['details']): Fault => {
    return { lastsMs, inject, details }
  }
  const anyMember = (...services: readonly ServiceName[]): Target => ({
    service: random.pick(services),
    index: random.integer(0, REPLICAS - 1),
  })
  const anyone = () => anyMember(...serviceNames)
  const onMember = (
    lastsMs: number,
    target: Target,
    inject: (member: Member, ms: number) => Promise<unknown>,
    ...more: Fault['details']
  ) => {
    const { service, index } = target
    return fault(lastsMs, ({ fleet }, ms) => inject(fleet.member(target), ms), `${service} ${index}`, ...more)
  }
  const onService =
    (lastsMs: number, inject: (fleet: Fleet, service: ServiceName, ms: number) => Promise<unknown>) => () => {
      const service = random.pick(serviceNames)
      return fault(lastsMs, ({ fleet }, ms) => inject(fleet, service, ms), service)
    }
  const withTrouble = (trouble: Partial<Trouble>, after: Partial<Trouble>) =>
    onService(5000, (fleet, service, ms) => orderFor(ms, fleet.members(service), { trouble }, { trouble: after }))
  const killAt = (service: ServiceName, point: Point) => () =>
    fault(4000, ({ fleet }, ms) => dieAt(fleet, service, point, ms))
  const onLink = (how: LinkFault, lastsMs: number) => () => {
    const link = random.pick(links)
    return fault(lastsMs, ({ parts }, ms) => parts.disturb(link, how, ms), link)
  }
  const onRates =
    (...behaviours: [Behaviour, ...Behaviour[]]) =>
    () =>
      fault(6000, async ({ rates }, ms) => {
        rates.behave(...behaviours)
        await sleep(ms)
        rates.behave('ok')
      })
  /** Half a minute where the run has room for it. */
  const outageMs = Math.min(30_000, lengthMs / 6)

  const onEmbeddedParts = {
    'broker frozen': () => fault(random.integer(7000, 12_000), ({ parts }, ms) => parts.freezeBroker(ms)),
    'store down': () => {
      const service = random.pick(['processor', 'monitor'] as const)
      return fault(outageMs, ({ parts }, ms) => parts.stopStore(service, ms), service)
    },
    'database locked': () => fault(7000, ({ parts }, ms) => parts.lockDatabase(ms)),
  }
  const onRealParts = {
    ...onEmbeddedParts,
    'broker killed': () => fault(4000, ({ parts }, ms) => parts.killBroker(ms)),
    'broker restarted': () => fault(2000, ({ parts }) => parts.restartBroker()),
    'topic recreated': () => {
      const name = random.pick(['requests', 'results'] as const)
      return fault(8000, ({ parts, fleet }) => loseTopic(parts, fleet, topics[name]), name)
    },
  }
  const connections = {
    latency: onLink('latency', 6000),
    resets: onLink('resets', 4000),
    'half-open': onLink('half-open', 9000),
    partition: onLink('partition', 8000),
  }
  return {
    crashes: {
      kill: () => onMember(2000, anyone(), (member) => member.kill()),
      'kill gateway before-publish': killAt('gateway', 'before-publish'),
      'kill gateway after-publish': killAt('gateway', 'after-publish'),
      'kill gateway before-offset': killAt('gateway', 'before-offset'),
      restart: () => onMember(3000, anyone(), (member) => member.down().then(member.up)),
    },
    'crashes behind gateway': {
      'kill processor before-publish': killAt('processor', 'before-publish'),
      'kill processor before-offset': killAt('processor', 'before-offset'),
      'kill processor before-dead-letter': killAt('processor', 'before-dead-letter'),
      'kill monitor handling': killAt('monitor', 'handling'),
      'kill monitor before-offset': killAt('monitor', 'before-offset'),
    },
    stalls: {
      // Longer than leases and sessions last.
      pause: () => onMember(random.integer(8000, Math.min(25_000, 6000 + outageMs)), anyone(), pause),
      clock: () => {
        const [target, shiftMs] = [anyone(), random.pick([HOUR_MS, -HOUR_MS])]
        return onMember(5000, target, (member, ms) => orderFor(ms, [member], { shiftMs }, { shiftMs: 0 }), shiftMs)
      },
      'disk full': () => onMember(4000, kind === 'real' ? anyMember('gateway') : anyone(), fillDisk),
      'replicas come and go': onService(9000, comeAndGo),
    },
    ...(kind === 'embedded' ? { parts: onEmbeddedParts } : { parts: onRealParts, connections }),
    messages: {
      'rates fail': onRates('down', 'busy', 'slow', 'not-found', 'stalled', 'down'),
      'rates lie': onRates(
        ...(['negative', 'zero', 'nan', 'null-rate', 'wrong-shape', 'other-base', 'not-json', 'huge'] as const),
        'redirect',
      ),
      duplicates: withTrouble({ duplicates: true }, { duplicates: false }),
      'other order': withTrouble({ otherOrder: true }, { otherOrder: false }),
      poison: () => fault(1000, ({ parts, poison, random }) => publishPoison(parts.foreign, poison, random)),
      misread: () => fault(4000, misreadRequests),
    },
  }
}

/** Gives the members an order, and another one when the time is over. */
async function orderFor(ms: number, members: readonly Member[], order: Order, after: Order): Promise<void> {
  for (const member of members) member.order(order)
  await sleep(ms)
  for (const member of members) member.order(after)
}

async function pause(member: Member, ms: number): Promise<void> {
  const goOn = member.pause()
  await sleep(ms)
  goOn()
}

/** Whether it came about in time. */
function reached(condition: () => boolean, withinMs: number): Promise<boolean> {
  return eventually(condition, Math.max(withinMs, REACHED_WITHIN_MS)).then(
    () => true,
    () => false,
  )
}

/** The first process of the service that gets to the point kills itself there. */
async function dieAt(fleet: Fleet, service: ServiceName, point: Point, withinMs: number): Promise<boolean> {
  const members = fleet.members(service).map((member) => ({ ...member, ...member.arm(point) }))
  if (point === 'before-dead-letter') for (const { order } of members) order({ trouble: { misread: 1 } })
  await reached(() => members.some(({ died }) => died()), withinMs)
  const dead = members.filter(({ died }) => died())
  for (const { disarm, order } of members) {
    disarm()
    order({ trouble: { misread: 0 } })
  }
  await Promise.all(dead.map(({ up }) => up()))
  return dead.length > 0
}

/** Processors read some requests wrongly, which become dead letters, and an operator redrives them. */
async function misreadRequests({ fleet, redrive }: Victims, withinMs: number): Promise<boolean> {
  const before = fleet.misread.length
  for (const member of fleet.members('processor')) member.order({ trouble: { misread: 2 } })
  const done = await reached(() => fleet.misread.length > before, withinMs)
  for (const member of fleet.members('processor')) member.order({ trouble: { misread: 0 } })
  await sleep(500)
  await redrive()
  return done
}

/** One more process of the service starts and ends every few seconds. */
async function comeAndGo(fleet: Fleet, service: ServiceName, lastsMs: number): Promise<void> {
  const extra = fleet.members(service).find((member) => member.extra) ?? (await fleet.add(service))
  const untilMs = performance.now() + lastsMs
  while (performance.now() < untilMs) {
    await extra.up()
    await sleep(1500)
    await extra.down()
  }
}

/** No file of the process can grow beyond a few pages, as on a disk that is full. */
async function fillDisk(member: Member, lastsMs: number): Promise<boolean> {
  const pid = member.pid()
  if (pid === undefined) return false
  await limitFiles(pid, String(64 * 1024))
  await sleep(lastsMs)
  // The process may have ended meanwhile.
  await limitFiles(pid, 'unlimited').catch(() => {})
  return true
}

async function limitFiles(pid: number, soft: string): Promise<void> {
  const command = ['prlimit', '--pid', String(pid), `--fsize=${soft}:unlimited`]
  const { exited } = Bun.spawn(command, { stdio: ['ignore', 'ignore', 'ignore'] })
  if ((await exited) !== 0) throw new Error('The limit of file sizes could not be set.')
}

async function loseTopic(parts: ChaosParts, fleet: Fleet, topic: Parameters<ChaosParts['recreateTopic']>[0]) {
  await parts.recreateTopic(topic)
  await sendAgain(fleet, 3 * 60_000, () => sleep(SWEEP_MS))
}

/**
 * Lets gateways send pending requests again, until `until` resolves: those that a deleted topic took with it. They do that
 * after minutes, so their clocks are set to `laterMs` later.
 */
export async function sendAgain(fleet: Fleet, laterMs: number, until: () => Promise<unknown>): Promise<void> {
  for (const member of fleet.members('gateway')) member.order({ shiftMs: laterMs })
  await until()
  for (const member of fleet.members('gateway')) member.order({ shiftMs: 0 })
}
