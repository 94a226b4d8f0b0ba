import { closeSync, openSync } from 'node:fs'
import { type ServiceName, serviceNames } from '../../common/name.ts'
import { type Environment, portVariable, REPOSITORY_ROOT } from '../../common/service/config.ts'
import { askUntil } from '../../tools/client.ts'
import { endWithUs, environmentFor, freePort } from '../../tools/infra/server.ts'
import { tryCall } from './try-call.ts'

/** How a process ended: its exit code, or the signal that killed it. */
export type End = number | NodeJS.Signals | null

export interface Spawned {
  readonly process: Bun.Subprocess
  readonly ended: Promise<End>
}

/** Starts a service as a process. It ends when this process does, even by kill -9. */
export function spawnService(options: {
  /** What Bun runs, from `cwd`. */
  readonly program: readonly string[]
  readonly environment: Environment
  /** The repository by default. */
  readonly cwd?: string
  /** A command with its flags that starts Bun and watches it. */
  readonly under?: readonly string[]
  /** The file that its output goes to. Without one, only its errors are shown. */
  readonly log?: string
  readonly onMessage?: (message: unknown) => void
}): Spawned {
  const { program, environment, cwd = REPOSITORY_ROOT, under = [], log, onMessage } = options
  const out = log === undefined ? undefined : openSync(log, 'a')
  const child = Bun.spawn([...under, process.execPath, ...program], {
    cwd,
    env: { ...environmentFor(), ...environment },
    stdio: ['ignore', out ?? 'ignore', out ?? 'inherit'],
    ...(onMessage && { ipc: onMessage }),
  })
  if (out !== undefined) closeSync(out)
  const watcher = endWithUs({ pid: child.pid })
  const ended = child.exited.then(() => {
    watcher.kill('SIGKILL')
    return child.signalCode ?? child.exitCode
  })
  return { process: child, ended }
}

/** A service as a process that can be ended and started again at the same address. */
export interface ServiceProcess {
  readonly url: string
  /** Resolves when it is ready and all its components work. */
  start(): Promise<void>
  /** Resolves when the process has ended. */
  stop(signal: NodeJS.Signals): Promise<End>
  /** Resolves when the process has ended by itself. */
  ended(): Promise<End>
  /** Sends it a message by IPC. Only a program of `options.program` has that. */
  send(message: unknown): void
}

/**
 * The services as processes, not started yet, each on a free port that the others know.
 * @param options.program what Bun runs for a service, where that is not its `main.ts`
 */
export async function serviceProcesses(
  environment: Environment,
  options: {
    cwd?: string
    under?: (service: ServiceName) => readonly string[]
    program?: (service: ServiceName) => readonly string[] | undefined
  } = {},
): Promise<Record<ServiceName, ServiceProcess>> {
  const { cwd = REPOSITORY_ROOT, under = () => [], program: programOf = () => undefined } = options
  const ports: Record<string, string> = {}
  for (const name of serviceNames) ports[portVariable(name)] = String(await freePort())

  const serviceProcess = (name: ServiceName): ServiceProcess => {
    const url = `http://127.0.0.1:${ports[portVariable(name)]}`
    let running: Spawned | undefined
    return {
      url,
      async start() {
        const other = programOf(name)
        running = spawnService({
          program: other ?? [`${name}/main.ts`],
          environment: { ...environment, ...ports },
          cwd,
          under: under(name),
          ...(other && { onMessage: () => {} }),
        })
        const { process } = running
        await askUntil(
          () => tryCall('GET', `${url}/health/ready`),
          ({ status, body }) => {
            if (process.exitCode !== null) throw new Error(`${name} ended with code ${process.exitCode}.`)
            return status === 200 && JSON.stringify(body).includes('"status":"ok","parts"')
          },
          40_000,
        )
      },
      async stop(signal) {
        running?.process.kill(signal)
        return (await running?.ended) ?? null
      },
      ended: async () => (await running?.ended) ?? null,
      send: (message) => running?.process.send(message),
    }
  }
  return {
    gateway: serviceProcess('gateway'),
    processor: serviceProcess('processor'),
    monitor: serviceProcess('monitor'),
  }
}
