import { type Environment, portVariable } from '../common/service/config.ts'
import { type Deps, systemDeps } from '../common/service/deps.ts'
import { type Listener, listen } from '../common/service/listener.ts'
import type { Service } from '../common/service/service.ts'
import { gateway } from '../gateway/gateway.ts'
import { monitor } from '../monitor/monitor.ts'
import { processor } from '../processor/processor.ts'

/** In the order in which they start and close: gateway stops sending before the others stop receiving. */
const definitions = [gateway, processor, monitor]

/** All services, in this process. */
export interface System {
  readonly gatewayUrl: string
  readonly processorUrl: string
  readonly monitorUrl: string
  /** What the services read, with the ports that they listen on. */
  readonly environment: Environment
  readonly services: readonly Service[]
  close(): Promise<void>
}

/**
 * Starts all services in this process, for the demo, the tests and the benchmarks. A service whose port is 0, absent or
 * taken listens on a free one.
 */
export async function startInProcess(environment: Environment, deps: Deps = systemDeps): Promise<System> {
  const bound = definitions.map((definition) => {
    const variable = portVariable(definition.name)
    return { definition, variable, listener: listenOrElsewhere(environment.HOST ?? '127.0.0.1', environment[variable]) }
  })
  // Every address follows from the ports, so they are all known before the first service is made.
  const ports = bound.map(({ variable, listener }) => [variable, String(listener.port)])
  const complete: Environment = { ...environment, ...Object.fromEntries(ports) }
  const configured = bound.map(({ definition, listener }) => ({ ...definition.configure(complete), listener }))
  const services = await Promise.all(configured.map(({ create, listener }) => create(deps, listener)))
  for (const service of services) await service.start()
  const { urls } = gateway.configure(complete).config
  return {
    gatewayUrl: urls.gateway,
    processorUrl: urls.processor,
    monitorUrl: urls.monitor,
    environment: complete,
    services,
    async close() {
      for (const service of services) await service.close()
    },
  }
}

function listenOrElsewhere(host: string, port: string | undefined): Listener {
  try {
    return listen(host, Number(port ?? 0))
  } catch {
    return listen(host, 0)
  }
}
