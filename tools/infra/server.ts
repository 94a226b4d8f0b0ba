import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { dirname } from 'node:path'

/** A real server in a process of its own, on a port and a directory that stay the same over kills and restarts. */
export interface Server {
  readonly url: string
  /** The process that runs now; the last one that ran, while none does. */
  readonly pid: number
  readonly log: string
  /** Sends the signal. Resolves when the process has ended; at once for SIGSTOP and SIGCONT, which end nothing. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Starts it again on the same port and data, ending it first if it runs. Resolves when it answers. */
  restart(): Promise<void>
  /** Ends it for good, and removes what was temporary. */
  stop(): Promise<void>
}

export interface ServerPlan {
  name: string
  url: string
  command: readonly string[]
  log: string
  /** Rejects, in seconds at most, while the server does not yet answer in its own protocol. */
  answers: () => Promise<void>
  /** Removed when the server stops, or when this process dies. */
  temporary?: string
}

const startTimeoutMs = 60_000
const stopTimeoutMs = 10_000

export async function runServer(plan: ServerPlan): Promise<Server> {
  mkdirSync(dirname(plan.log), { recursive: true })
  let running = start(plan)

  const end = async (signal: NodeJS.Signals) => {
    // A stopped process gets to see no other signal than SIGKILL before it goes on.
    running.kill('SIGCONT')
    running.kill(signal)
    if (await ended(running.exited, stopTimeoutMs)) return
    running.kill('SIGKILL')
    await running.exited
  }
  const server: Server = {
    url: plan.url,
    log: plan.log,
    get pid() {
      return running.pid
    },
    async kill(signal = 'SIGKILL') {
      running.kill(signal)
      if (signal !== 'SIGSTOP' && signal !== 'SIGCONT') await running.exited
    },
    async restart() {
      await end('SIGTERM')
      running = start(plan)
      await untilItAnswers(plan, running.exited)
    },
    async stop() {
      // Data that is thrown away needs no orderly end, which takes Kafka seconds.
      await end(plan.temporary ? 'SIGKILL' : 'SIGTERM')
      if (plan.temporary) rmSync(plan.temporary, { recursive: true, force: true })
    },
  }
  try {
    await untilItAnswers(plan, running.exited)
  } catch (error) {
    await server.stop()
    throw error
  }
  return server
}

function start(plan: ServerPlan) {
  const log = openSync(plan.log, 'a')
  const server = Bun.spawn([...plan.command], { env: environmentFor(), stdin: 'ignore', stdout: log, stderr: log })
  closeSync(log)
  const watcher = endWithUs({ pid: server.pid, folder: plan.temporary })
  const exited = server.exited.then(() => watcher.kill('SIGKILL'))
  return { pid: server.pid, exited, kill: (signal: NodeJS.Signals) => server.kill(signal) }
}

/** When this process ends in any way, kill -9 too, kills that one and removes that folder: nothing is left behind. */
export function endWithUs({ pid, folder }: { pid?: number; folder?: string | undefined }): Bun.Subprocess {
  // The watcher's standard input closes when this process ends.
  const watcher = Bun.spawn(
    [
      'sh',
      '-c',
      'cat >/dev/null; [ -z "$1" ] || kill -9 "$1"; [ -z "$2" ] || rm -rf "$2"',
      'sh',
      `${pid ?? ''}`,
      folder ?? '',
    ],
    { env: environmentFor(), stdin: 'pipe', stdout: 'ignore', stderr: 'ignore' },
  )
  watcher.unref()
  return watcher
}

async function untilItAnswers({ name, url, log, answers }: ServerPlan, exited: Promise<void>) {
  let gone = false
  exited.then(() => {
    gone = true
  })
  try {
    await answering(name, url, answers, () => gone)
  } catch (error) {
    throw new Error(`${error instanceof Error ? error.message : error}\nThe end of ${log}:\n${tail(log)}`)
  }
}

/** Resolves when the server at `url` answers in its own protocol; gives up when it is `gone` or has had its time. */
export async function answering(name: string, url: string, answers: () => Promise<void>, gone = () => false) {
  const deadlineMs = Date.now() + startTimeoutMs
  for (;;) {
    if (gone()) throw new Error(`${name} ended before it answered at ${url}.`)
    try {
      return await answers()
    } catch (error) {
      if (Date.now() > deadlineMs) {
        throw new Error(`${name} did not answer at ${url} within ${startTimeoutMs / 1000} s: ${error}`)
      }
      await Bun.sleep(50)
    }
  }
}

function tail(file: string, lines = 25): string {
  return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-lines).join('\n')
}

async function ended(exited: Promise<void>, timeoutMs: number): Promise<boolean> {
  let timer: Timer | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs)
  })
  const inTime = await Promise.race([exited.then(() => true), late])
  clearTimeout(timer)
  return inTime
}

const plainVariables = ['PATH', 'HOME', 'JAVA_HOME', 'LANG', 'TMPDIR', 'TZ']

/** What a server or a build tool may see of this process's environment: what is named, so never a secret by accident. */
export function environmentFor(also: readonly string[] = []): Record<string, string> {
  const env: Record<string, string> = {}
  for (const name of [...plainVariables, ...also]) {
    const value = process.env[name]
    if (value !== undefined) env[name] = value
  }
  return env
}

/** Ports that this process was told and may not have bound yet. */
const given = new Set<number>()

/**
 * A port below those that systems hand out to outgoing connections (from 32768 on Linux, 49152 elsewhere), so that
 * nothing takes it while a killed server is down. `wanted` if that is free.
 */
export async function freePort(wanted?: number): Promise<number> {
  if (wanted && (await isFree(wanted))) return wanted
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = 20_000 + Math.floor(Math.random() * 10_000)
    if (given.has(port) || !(await isFree(port))) continue
    given.add(port)
    return port
  }
  throw new Error('No free port on 127.0.0.1 between 20000 and 29999: stop something that listens there.')
}

export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}
