import { setTimeout as sleep } from 'node:timers/promises'
import { topics } from '../../common/messages/topics.ts'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import type { Behaviour, FakeApi } from '../../gateway/testing/fake-rates-api.ts'
import { type Fleet, type Member, REPLICAS, type Target } from './fleet.ts'
import type { Point } from './orders.ts'
import { type ChaosParts, type LinkFault, links, type PartsKind } from './parts.ts'
import { publishPoison } from './poison.ts'
import { comeAndGo, dieAt, fillDisk, misreadRequests, orderUntil, pause, sendAgain } from './process-faults.ts'
import type { ProviderProcess } from './provider-process.ts'
import type { Random } from './random.ts'
import type { Poison } from './snapshot.ts'

/** What faults are done to, and with. */
export interface Victims {
  readonly fleet: Fleet
  readonly parts: ChaosParts
  readonly rates: FakeApi
  readonly provider: ProviderProcess
  /** The poison that was published so far. */
  readonly poison: Poison[]
  readonly random: Random
  /** Redrives dead letters, as an operator. */
  readonly redrive: () => Promise<void>
}

export interface Fault {
  readonly lastsMs: number
  /** What it is done to, in words for a person. */
  readonly details: readonly (string | number)[]
  /** Resolves when the fault is over; to false where it could not be injected. */
  readonly inject: (victims: Victims, lastsMs: number) => Promise<unknown>
}

type Lanes = ReturnType<typeof faultLanes>
type KindsOf<Each> = Each extends unknown ? { [Name in keyof Each]: keyof Each[Name] }[keyof Each] : never
export type FaultKind = KindsOf<Lanes>

const HOUR_MS = 60 * 60 * 1000
/** A run that waits goes on by the clock of the processor that looks: a wrong one delays it by as much. */
const RUNS_SHIFT_MS = 15_000
/** Longer than gateway pauses between two looks at what is pending. */
const SWEEP_MS = 6000

/** Every kind of fault that the parts allow. Lanes run side by side; the faults of a lane follow each other. */
export function faultLanes(kind: PartsKind, lengthMs: number, random: Random) {
  // These make faults. What a fault is done to is picked when it is made.
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
    { service, index }: Target,
    inject: (member: Member, ms: number) => Promise<unknown>,
    ...more: Fault['details']
  ) => fault(lastsMs, ({ fleet }, ms) => inject(fleet.member(service, index), ms), `${service} ${index}`, ...more)
  const onService =
    (lastsMs: number, inject: (fleet: Fleet, service: ServiceName, ms: number) => Promise<unknown>) => () => {
      const service = random.pick(serviceNames)
      return fault(lastsMs, ({ fleet }, ms) => inject(fleet, service, ms), service)
    }
  const withTrouble = (name: 'duplicates' | 'otherOrder') =>
    onService(5000, (fleet, service, ms) => {
      const [begin, end] = [{ trouble: { [name]: true } }, { trouble: { [name]: false } }]
      return orderUntil(fleet.members(service), begin, end, () => sleep(ms))
    })
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
  const onProvider = (inject: (provider: ProviderProcess, ms: number) => Promise<unknown>) => () =>
    fault(random.integer(1000, 6000), ({ provider }, ms) => inject(provider, ms))
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
      return fault(
        8000,
        async ({ parts, fleet }) => {
          await parts.recreateTopic(topics[name])
          await sendAgain(fleet, 3 * 60_000, () => sleep(SWEEP_MS))
        },
        name,
      )
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
    'crashes in steps': {
      'kill processor before-call': killAt('processor', 'before-call'),
      'kill processor after-call': killAt('processor', 'after-call'),
      'kill processor before-progress': killAt('processor', 'before-progress'),
      'kill processor before-result': killAt('processor', 'before-result'),
      'kill processor during-undo': killAt('processor', 'during-undo'),
    },
    provider: {
      'provider away': onProvider((provider, ms) => provider.away('SIGTERM', ms)),
      'provider killed': onProvider((provider, ms) => provider.away('SIGKILL', ms)),
      'provider frozen': onProvider((provider, ms) => provider.freeze(ms)),
    },
    stalls: {
      // Longer than leases and sessions last.
      pause: () => onMember(random.integer(8000, Math.min(25_000, 6000 + outageMs)), anyone(), pause),
      clock: () => {
        const target = anyone()
        const mostMs = target.service === 'processor' ? RUNS_SHIFT_MS : HOUR_MS
        const shiftMs = random.pick([mostMs, -mostMs])
        const inject = (member: Member, ms: number) =>
          orderUntil([member], { shiftMs }, { shiftMs: 0 }, () => sleep(ms))
        return onMember(5000, target, inject, shiftMs)
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
      duplicates: withTrouble('duplicates'),
      'other order': withTrouble('otherOrder'),
      poison: () => fault(1000, ({ parts, poison, random }) => publishPoison(parts.foreign, poison, random)),
      misread: () => fault(4000, misreadRequests),
    },
  }
}
