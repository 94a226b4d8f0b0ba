import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as v from 'valibot'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { type Environment, portVariable } from '../../common/service/config.ts'
import { askUntil } from '../../tools/client.ts'
import { freePort } from '../../tools/infra/server.ts'
import { type End, type Spawned, spawnService } from '../testing/service-processes.ts'
import { tryCall } from '../testing/try-call.ts'
import { type Order, type Point, Report } from './orders.ts'

/** One of the processes of a run, by its service and number. */
export interface Target {
  readonly service: ServiceName
  readonly index: number
}

/** A process that ended though the run did not end it. */
export interface OwnEnd extends Target {
  readonly atMs: number
  readonly code: End
}

/** A process of a service. When it ends it is started again at the same address, until `down` is called. */
export interface Member extends Target {
  /** Whether it was added after the run began, and comes and goes. */
  readonly extra: boolean
  readonly url: string
  /** The id of the process, while it runs. */
  pid(): number | undefined
  /** The most memory that it took. */
  maxRssBytes(): number
  /** Starts it if it is down. Resolves when it answers. */
  up(): Promise<void>
  /** SIGKILL. Resolves when it answers again. */
  kill(): Promise<void>
  /** SIGTERM. Resolves to how it ended: 0 if it drained. */
  down(): Promise<End>
  /** SIGSTOP. The function that it returns continues the process. */
  pause(): () => void
  /** Does nothing while the process is ending. */
  order(order: Order): void
  /** Makes the process kill itself at the point. */
  arm(point: Point): Armed
}

export interface Armed {
  /** Whether the process has killed itself. */
  died(): boolean
  /** After this it will not kill itself any more. */
  disarm(): void
}

export interface Fleet {
  members(service?: ServiceName): readonly Member[]
  member(service: ServiceName, index?: number): Member
  /** Adds a process of the service, without starting it. */
  add(service: ServiceName): Promise<Member>
  readonly ownEnds: readonly OwnEnd[]
  /** The operations whose requests a processor read wrongly. */
  readonly misread: readonly string[]
  /** Kills all. */
  dispose(): Promise<void>
}

/** How many of each service there are, besides those that come and go. */
export const REPLICAS = 2

const RESTART_AFTER_MS = 300
const UP_WITHIN_MS = 60_000
const DOWN_WITHIN_MS = 20_000
const SAMPLE_EVERY_MS = 1000

/** @param options.environmentOf what a service reads besides its own port; asked for at each start */
export async function createFleet(options: {
  readonly logDir: string
  readonly environmentOf: (service: ServiceName) => Environment
}): Promise<Fleet> {
  const { logDir, environmentOf } = options
  const members: (Member & { dispose(): Promise<void> })[] = []
  const ownEnds: OwnEnd[] = []
  const misread: string[] = []

  async function add(service: ServiceName): Promise<Member> {
    const index = members.filter((member) => member.service === service).length
    const port = await freePort()
    const member = createMember({
      service,
      index,
      port,
      log: join(logDir, `${service}-${index}.log`),
      environment: () => ({ ...environmentOf(service), [portVariable(service)]: String(port) }),
      onOwnEnd: (code) => ownEnds.push({ service, index, atMs: Date.now(), code }),
      // A service also says when it is ready.
      onMessage: (message) => v.is(Report, message) && misread.push(message.misread),
    })
    members.push(member)
    return member
  }

  for (const service of serviceNames) for (let made = 0; made < REPLICAS; made++) await add(service)
  return {
    members: (service) => members.filter((member) => !service || member.service === service),
    member(service, index = 0) {
      const found = members.find((member) => member.service === service && member.index === index)
      if (!found) throw new Error(`There is no ${service} ${index}.`)
      return found
    },
    add,
    ownEnds,
    misread,
    async dispose() {
      await Promise.all(members.map((member) => member.dispose()))
    },
  }
}

function createMember(options: {
  readonly service: ServiceName
  readonly index: number
  readonly port: number
  readonly log: string
  readonly environment: () => Environment
  readonly onOwnEnd: (code: End) => void
  readonly onMessage: (message: unknown) => void
}): Member & { dispose(): Promise<void> } {
  const { service, index, port, log, environment, onOwnEnd, onMessage } = options
  const url = `http://127.0.0.1:${port}`
  const program = [join(import.meta.dir, 'service.child.ts'), service]
  let wanted = false
  let running: Spawned | undefined
  /** Processes that the run ended or armed. An armed one may kill itself just before it is disarmed. */
  const asked = new WeakMap<Bun.Subprocess, 'ended' | 'armed'>()
  let maxRssBytes = 0
  const sampling = setInterval(() => {
    if (running) maxRssBytes = Math.max(maxRssBytes, rssBytes(running.process.pid))
  }, SAMPLE_EVERY_MS)

  function start(): void {
    const started = spawnService({ program, environment: environment(), log, onMessage })
    running = started
    void started.ended.then(async (code) => {
      if (running === started) running = undefined
      if (!asked.has(started.process)) onOwnEnd(code)
      await Bun.sleep(RESTART_AFTER_MS)
      if (wanted && !running) start()
    })
  }

  async function end(signal: 'SIGTERM' | 'SIGKILL'): Promise<End> {
    const ending = running
    if (!ending) return null
    asked.set(ending.process, 'ended')
    ending.process.kill(signal)
    const late = setTimeout(() => ending.process.kill('SIGKILL'), DOWN_WITHIN_MS)
    return ending.ended.finally(() => clearTimeout(late))
  }

  function order(given: Order): void {
    try {
      running?.process.send(given)
    } catch {
      // It is ending.
    }
  }

  async function untilUp(): Promise<void> {
    const ask = () => tryCall('GET', `${url}/health/live`, { signal: AbortSignal.timeout(1000) })
    await askUntil(ask, ({ status }) => status === 200, UP_WITHIN_MS).catch(() => {
      const lines = readFileSync(log, 'utf8').trimEnd().split('\n').slice(-10)
      throw new Error(`${service} ${index} does not answer. The end of its log:\n${lines.join('\n')}`)
    })
  }

  return {
    service,
    index,
    extra: index >= REPLICAS,
    url,
    pid: () => running?.process.pid,
    maxRssBytes: () => maxRssBytes,
    async up() {
      wanted = true
      if (!running) start()
      await untilUp()
    },
    async kill() {
      await end('SIGKILL')
      if (wanted) await untilUp()
    },
    async down() {
      wanted = false
      return end('SIGTERM')
    },
    pause() {
      const paused = running?.process
      paused?.kill('SIGSTOP')
      return () => paused?.kill('SIGCONT')
    },
    order,
    arm(point) {
      const armed = running?.process
      if (armed) asked.set(armed, 'armed')
      order({ trouble: { killAt: point } })
      return {
        died: () => armed?.signalCode === 'SIGKILL' && asked.get(armed) === 'armed',
        disarm: () => order({ trouble: { killAt: undefined } }),
      }
    },
    async dispose() {
      wanted = false
      clearInterval(sampling)
      await end('SIGKILL')
    },
  }
}

function rssBytes(pid: number): number {
  try {
    return 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0)
  } catch {
    return 0
  }
}
