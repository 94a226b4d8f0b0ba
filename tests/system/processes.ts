import type { ServiceName } from '../../common/name.ts'
import { type Environment, REPOSITORY_ROOT } from '../../common/service/config.ts'
import { call, eventually } from '../../tools/client.ts'
import { freePort } from '../../tools/infra/server.ts'

/** A service as a process of its own, that can be killed and started again at the same address. */
export interface ServiceProcess {
  readonly url: string
  /** Resolves when it answers, and all its parts work. */
  start(): Promise<void>
  /** Resolves when the process has ended, to its exit code or signal. */
  stop(signal: NodeJS.Signals): Promise<number | NodeJS.Signals | null>
}

/** @param under the command, with its flags, that starts each one and watches it */
export async function serviceProcesses(
  environment: Environment,
  under: (service: ServiceName) => readonly string[] = () => [],
): Promise<Record<ServiceName, ServiceProcess>> {
  const ports = { GATEWAY_PORT: await freePort(), PROCESSOR_PORT: await freePort(), MONITOR_PORT: await freePort() }
  const settled = {
    ...environment,
    ...Object.fromEntries(Object.entries(ports).map(([name, port]) => [name, String(port)])),
  }
  return {
    gateway: serviceProcess('gateway', ports.GATEWAY_PORT, settled, under('gateway')),
    processor: serviceProcess('processor', ports.PROCESSOR_PORT, settled, under('processor')),
    monitor: serviceProcess('monitor', ports.MONITOR_PORT, settled, under('monitor')),
  }
}

function serviceProcess(
  name: ServiceName,
  port: number,
  environment: Environment,
  under: readonly string[],
): ServiceProcess {
  const url = `http://127.0.0.1:${port}`
  let child: ReturnType<typeof spawn> | undefined
  const spawn = () =>
    Bun.spawn([...under, process.execPath, `${name}/main.ts`], {
      cwd: REPOSITORY_ROOT,
      env: { ...process.env, NODE_ENV: 'test', ...environment },
      stdio: ['ignore', 'ignore', 'inherit'],
    })
  return {
    url,
    async start() {
      child = spawn()
      const ready = () =>
        call('GET', `${url}/health/ready`).catch(() => ({ status: 0, headers: new Headers(), body: undefined }))
      await eventually(
        ready,
        ({ status, body }) => status === 200 && JSON.stringify(body).includes('"status":"ok","parts"'),
        40_000,
      )
    },
    async stop(signal) {
      child?.kill(signal)
      await child?.exited
      return child?.exitCode ?? child?.signalCode ?? null
    },
  }
}
