import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { NAME } from '../../common/name.ts'
import { pause } from '../../common/service/backoff.ts'
import { within } from '../../common/service/deadline.ts'

/** A real server in a process of its own, on a port and a directory that stay the same over kills and restarts. */
export interface Server {
  readonly url: string
  /** The process that runs now; the last one that ran, while none does. */
  readonly pid: number
  /** Sends the signal. Resolves when the process has ended; at once for SIGSTOP and SIGCONT, which end nothing. */
  kill(signal?: NodeJS.Signals): Promise<void>
  /** Ends it if it runs, and starts it again on the same port and data. Resolves when it answers. */
  restart(): Promise<void>
  /** Ends it for good, and removes what was temporary. */
  stop(): Promise<void>
}

export interface ServerOptions {
  /** On 127.0.0.1. Without it, or when it is taken: a free one. */
  port?: number
  /** Where the data stays after a stop. Without it the data is temporary. */
  directory?: string
}

export interface ServerPlan extends ServerFolder {
  name: string
  url: string
  command: readonly string[]
  /** Rejects, within seconds, while the server does not yet answer in its own protocol. */
  answers: () => Promise<void>
}

/** A server's data and log. */
export interface ServerFolder {
  folder: string
  /** The folder is removed when the server stops, or when this process dies. */
  temporary: boolean
}

/** Makes the folder of a server: `directory`, or a temporary one. */
export function serverFolder(name: string, directory?: string): ServerFolder {
  if (directory === undefined) return { folder: mkdtempSync(join(tmpdir(), `${NAME}-${name}-`)), temporary: true }
  mkdirSync(directory, { recursive: true })
  return { folder: directory, temporary: false }
}

const START_TIMEOUT_MS = 60_000
const STOP_TIMEOUT_MS = 10_000

/** Starts a server. Resolves when it answers. @throws Error with the end of its log, when it does not within 60 s. */
export async function runServer(plan: ServerPlan): Promise<Server> {
  const { name, url, folder, temporary, answers } = plan
  const log = join(folder, 'server.log')
  let running = start(plan, log)

  async function end(signal: NodeJS.Signals): Promise<void> {
    // A process under SIGSTOP handles no signal but SIGKILL until it goes on.
    running.kill('SIGCONT')
    running.kill(signal)
    await within(running.exited, STOP_TIMEOUT_MS, 'Stopping').catch(() => running.kill('SIGKILL'))
    await running.exited
  }

  async function ready(): Promise<void> {
    try {
      await answering(name, url, answers, () => running.exitCode !== null || running.signalCode !== null)
    } catch (error) {
      const tail = readFileSync(log, 'utf8').trimEnd().split('\n').slice(-25).join('\n')
      throw new Error(`${error instanceof Error ? error.message : error}\nThe end of ${log}:\n${tail}`)
    }
  }

  const server: Server = {
    url,
    get pid() {
      return running.pid
    },
    async kill(signal = 'SIGKILL') {
      running.kill(signal)
      if (signal !== 'SIGSTOP' && signal !== 'SIGCONT') await running.exited
    },
    async restart() {
      await end('SIGTERM')
      running = start(plan, log)
      await ready()
    },
    async stop() {
      // An orderly end takes Kafka seconds. Data that is thrown away does not need it.
      await end(temporary ? 'SIGKILL' : 'SIGTERM')
      if (temporary) rmSync(folder, { recursive: true, force: true })
    },
  }
  try {
    await ready()
  } catch (error) {
    await server.stop()
    throw error
  }
  return server
}

function start({ command, folder, temporary }: ServerPlan, log: string) {
  const out = openSync(log, 'a')
  const server = Bun.spawn([...command], { env: environmentFor(), stdio: ['ignore', out, out] })
  closeSync(out)
  const watcher = endWithUs({ pid: server.pid, ...(temporary && { folder }) })
  server.exited.then(() => watcher.kill('SIGKILL'))
  return server
}

/** Kills the process and removes the folder when this process ends in any way, by kill -9 too. */
export function endWithUs({ pid, folder }: { pid?: number; folder?: string }): Bun.Subprocess {
  // The watcher's standard input closes when this process ends.
  const script = 'cat >/dev/null; [ -z "$1" ] || kill -9 "$1"; [ -z "$2" ] || rm -rf "$2"'
  const watcher = Bun.spawn(['sh', '-c', script, 'sh', `${pid ?? ''}`, folder ?? ''], {
    env: environmentFor(),
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  watcher.unref()
  return watcher
}

/** Resolves when the server at `url` answers in its own protocol. @throws Error once it is `gone`, or after 60 s. */
export async function answering(name: string, url: string, answers: () => Promise<void>, gone = () => false) {
  const deadlineMs = performance.now() + START_TIMEOUT_MS
  for (;;) {
    if (gone()) throw new Error(`${name} ended before it answered at ${url}.`)
    try {
      return await answers()
    } catch (error) {
      if (performance.now() > deadlineMs)
        throw new Error(`${name} did not answer at ${url} within ${START_TIMEOUT_MS / 1000} s: ${error}`)
      await pause(50)
    }
  }
}

const plainVariables = ['PATH', 'HOME', 'JAVA_HOME', 'LANG', 'TMPDIR', 'TZ']

/** The environment of a server or a build tool: only the variables named here and in `also`, so that no secret slips in. */
export function environmentFor(also: readonly string[] = []): Record<string, string> {
  const named = [...plainVariables, ...also].map((name) => [name, process.env[name]] as const)
  return Object.fromEntries(named.flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])))
}

/** Ports that `freePort` gave out and that may not be bound yet. */
const given = new Set<number>()

/**
 * `wanted` if it is free. Otherwise a free port below those that systems use for outgoing connections (from 32768 on
 * Linux, 49152 elsewhere), so that nothing takes it while a killed server is down.
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
