import { closeSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { type Environment, REPOSITORY_ROOT } from '../../common/service/config.ts'
import { endWithUs, environmentFor, freePort } from '../../tools/infra/server.ts'
import type { Trouble } from './broken-broker.ts'
import type { Point, Target } from './plan.ts'

/** What a process is told while it runs. */
export interface Order {
  /** By how much its wall clock is wrong from now on. */
  readonly shiftMs?: number
  readonly trouble?: Partial<Trouble>
}

/** What a process tells. */
export interface Report {
  /** An operation whose request was read wrongly. */
  readonly misread: string
}

/** How a process ended that nobody had asked to. */
export interface OwnEnd {
  readonly service: ServiceName
  readonly index: number
  readonly atMs: number
  readonly code: number | NodeJS.Signals | null
}

/** A process of a service, started again whenever it ends, at the same address, until it is told to stay down. */
export interface Member extends Target {
  /** One that comes and goes, and is not among those that the run began with. */
  readonly extra: boolean
  readonly url: string
  /** Of the process that runs now. */
  pid(): number | undefined
  maxRssBytes(): number
  /** Starts it if it is down. Resolves when it answers. */
  up(): Promise<void>
  /** SIGKILL; it is started again. Resolves when it answers again. */
  kill(): Promise<void>
  /** SIGTERM, and down. Resolves to how it ended: 0 where it drained. */
  down(): Promise<number | NodeJS.Signals | null>
  /** SIGSTOP for the process that runs now. The function that is returned lets it go on. */
  pause(): () => void
  /** Ignored by a process that is just ending. */
  order(order: Order): void
  /** Arms the process to kill itself at the point. */
  arm(point: Point): void
  /** Whether the process that was armed last has killed itself. */
  died(): boolean
  /** The same; if it has not, it will not any more. */
  disarm(): boolean
}

export interface Fleet {
  members(service?: ServiceName): readonly Member[]
  member(target: Target): Member
  /** One more of the service, not started. */
  add(service: ServiceName): Promise<Member>
  readonly ownEnds: readonly OwnEnd[]
  readonly misread: readonly string[]
  /** SIGKILL to all. */
  dispose(): Promise<void>
}

const RESTART_AFTER_MS = 300
const UP_WITHIN_MS = 60_000
/** One that ends so often before it answers will not answer. */
const MAX_STARTS = 20
const DOWN_WITHIN_MS = 20_000
const SAMPLE_EVERY_MS = 1000

/** @param options.environmentOf what a process of the service is started with besides its own port. */
export async function createFleet(options: {
  readonly replicas: Readonly<Record<ServiceName, number>>
  readonly logDir: string
  readonly environmentOf: (service: ServiceName) => Environment
}): Promise<Fleet> {
  const { replicas, logDir, environmentOf } = options
  const members: (Member & { dispose(): Promise<void> })[] = []
  const ownEnds: OwnEnd[] = []
  const misread: string[] = []

  async function add(service: ServiceName): Promise<Member> {
    const index = members.filter((member) => member.service === service).length
    const port = await freePort()
    const member = createMember({
      service,
      index,
      extra: index >= replicas[service],
      port,
      log: join(logDir, `${service}-${index}.log`),
      environment: () => ({ ...environmentOf(service), [`${service.toUpperCase()}_PORT`]: String(port) }),
      onOwnEnd: (code) => ownEnds.push({ service, index, atMs: Date.now(), code }),
      onReport: (report) => misread.push(report.misread),
    })
    members.push(member)
    return member
  }

  for (const service of serviceNames) for (let made = 0; made < replicas[service]; made++) await add(service)
  return {
    members: (service) => members.filter((member) => !service || member.service === service),
    member({ service, index }) {
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

type Code = number | NodeJS.Signals | null
type Child = { readonly process: Bun.Subprocess; readonly ended: Promise<Code> }

function createMember(options: {
  readonly service: ServiceName
  readonly index: number
  readonly extra: boolean
  readonly port: number
  readonly log: string
  readonly environment: () => Environment
  readonly onOwnEnd: (code: Code) => void
  readonly onReport: (report: Report) => void
}): Member & { dispose(): Promise<void> } {
  const { service, index, port, log, environment, onOwnEnd, onReport } = options
  const url = `http://127.0.0.1:${port}`
  let wanted = false
  let child: Child | undefined
  /** Ends that the run itself brought about, or may still: what was armed may be killed just when it is disarmed. */
  const asked = new WeakSet<Bun.Subprocess>()
  let armed: Bun.Subprocess | undefined
  let maxRssBytes = 0
  let ends = 0
  const sampling = setInterval(() => {
    if (child) maxRssBytes = Math.max(maxRssBytes, rssBytes(child.process.pid))
  }, SAMPLE_EVERY_MS)

  function start(): void {
    const out = openSync(log, 'a')
    const started = Bun.spawn([process.execPath, join(import.meta.dir, 'service.ts'), service], {
      cwd: REPOSITORY_ROOT,
      env: { ...environmentFor(), ...environment() },
      stdio: ['ignore', out, out],
      // A service also says when it is ready.
      ipc: (said: Report | { ready: string }) => 'misread' in said && onReport(said),
    })
    closeSync(out)
    const watcher = endWithUs({ pid: started.pid })
    const ended = started.exited.then(() => {
      watcher.kill('SIGKILL')
      return started.signalCode ?? started.exitCode
    })
    child = { process: started, ended }
    void ended.then(async (code) => {
      if (child?.process === started) child = undefined
      if (!asked.has(started)) {
        ends += 1
        onOwnEnd(code)
      }
      await Bun.sleep(RESTART_AFTER_MS)
      if (wanted && !child) start()
    })
  }

  function order(given: Order): void {
    try {
      child?.process.send(given)
    } catch {
      // It is just ending.
    }
  }

  async function untilUp(): Promise<void> {
    const deadlineMs = performance.now() + UP_WITHIN_MS
    const endsBefore = ends
    while (performance.now() < deadlineMs && ends - endsBefore < MAX_STARTS) {
      try {
        const { ok } = await fetch(`${url}/health/live`, { signal: AbortSignal.timeout(1000) })
        if (ok) return
      } catch {
        // Not yet.
      }
      await Bun.sleep(50)
    }
    const end = readFileSync(log, 'utf8').trimEnd().split('\n').slice(-10).join('\n')
    throw new Error(`${service} ${index} does not answer. The end of its log:\n${end}`)
  }

  return {
    service,
    index,
    extra: options.extra,
    url,
    pid: () => child?.process.pid,
    maxRssBytes: () => maxRssBytes,
    async up() {
      wanted = true
      if (!child) start()
      await untilUp()
    },
    async kill() {
      const victim = child
      if (victim) {
        asked.add(victim.process)
        // It did not get to the point where it was to kill itself.
        if (victim.process === armed) armed = undefined
        victim.process.kill('SIGKILL')
        await victim.ended
      }
      if (wanted) await untilUp()
    },
    async down() {
      wanted = false
      const leaving = child
      if (!leaving) return null
      asked.add(leaving.process)
      leaving.process.kill('SIGTERM')
      const late = setTimeout(() => leaving.process.kill('SIGKILL'), DOWN_WITHIN_MS)
      return leaving.ended.finally(() => clearTimeout(late))
    },
    pause() {
      const paused = child
      paused?.process.kill('SIGSTOP')
      return () => paused?.process.kill('SIGCONT')
    },
    order,
    arm(point) {
      if (!child) return
      armed = child.process
      asked.add(armed)
      order({ trouble: { killAt: point } })
    },
    died: () => armed?.signalCode === 'SIGKILL',
    disarm() {
      if (!armed) return false
      const died = armed.signalCode === 'SIGKILL'
      if (!died) order({ trouble: { killAt: undefined } })
      armed = undefined
      return died
    },
    async dispose() {
      wanted = false
      clearInterval(sampling)
      if (!child) return
      asked.add(child.process)
      child.process.kill('SIGKILL')
      await child.ended
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
