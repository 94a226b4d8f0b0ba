import { setTimeout as sleep } from 'node:timers/promises'
import type { ServiceName } from '../../common/name.ts'
import { eventually } from '../../common/testing/eventually.ts'
import type { Fleet, Member } from './fleet.ts'
import type { Order, Point } from './orders.ts'

/** A point that no process reaches for so long, while other faults are in the way, is given up. */
const REACHED_WITHIN_MS = 25_000

/** Gives the members an order and, when `until` resolves, the order `after`. Resolves to the result of `until`. */
export async function orderUntil<Result>(
  members: readonly Member[],
  order: Order,
  after: Order,
  until: () => Promise<Result>,
): Promise<Result> {
  for (const member of members) member.order(order)
  const result = await until()
  for (const member of members) member.order(after)
  return result
}

/**
 * Makes gateways send pending requests again, until `until` resolves, since some were lost with a deleted topic.
 * Gateways do that after minutes, so their clocks are set `laterMs` ahead.
 */
export async function sendAgain(fleet: Fleet, laterMs: number, until: () => Promise<void>): Promise<void> {
  await orderUntil(fleet.members('gateway'), { shiftMs: laterMs }, { shiftMs: 0 }, until)
}

export async function pause(member: Member, ms: number): Promise<void> {
  const goOn = member.pause()
  await sleep(ms)
  goOn()
}

/** Resolves to whether the condition held in time. */
function reached(condition: () => boolean, withinMs: number): Promise<boolean> {
  return eventually(condition, Math.max(withinMs, REACHED_WITHIN_MS)).then(
    () => true,
    () => false,
  )
}

/** Makes the first process of the service that gets to the point kill itself there. Resolves to whether one did. */
export async function dieAt(fleet: Fleet, service: ServiceName, point: Point, withinMs: number): Promise<boolean> {
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

/** Makes processors read some requests wrongly. These become dead letters, which an operator redrives. */
export async function misreadRequests(
  { fleet, redrive }: { fleet: Fleet; redrive: () => Promise<void> },
  withinMs: number,
): Promise<boolean> {
  const before = fleet.misread.length
  const processors = fleet.members('processor')
  const done = await orderUntil(processors, { trouble: { misread: 2 } }, { trouble: { misread: 0 } }, () =>
    reached(() => fleet.misread.length > before, withinMs),
  )
  await sleep(500)
  await redrive()
  return done
}

/** Starts and ends one more process of the service every few seconds. */
export async function comeAndGo(fleet: Fleet, service: ServiceName, lastsMs: number): Promise<void> {
  const extra = fleet.members(service).find((member) => member.extra) ?? (await fleet.add(service))
  const untilMs = performance.now() + lastsMs
  while (performance.now() < untilMs) {
    await extra.up()
    await sleep(1500)
    await extra.down()
  }
}

/** Lets no file of the process grow beyond a few pages, as on a full disk. */
export async function fillDisk(member: Member, lastsMs: number): Promise<boolean> {
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
