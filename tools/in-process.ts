import type { Environment } from '../common/service/config.ts'
import { portVariable } from '../common/service/config.ts'
import { type Deps, systemDeps } from '../common/service/deps.ts'
import { type Listener, listen } from '../common/service/listener.ts'
import type { Service } from '../common/service/service.ts'
import { gateway } from '../gateway/gateway.ts'
import { monitor } from '../monitor/monitor.ts'
import { processor } from '../processor/processor.ts'

/** Whoever sends stands before whoever receives: they are closed in this order. */
const definitions = [gateway, processor, monitor]

export interface System {
  readonly gatewayUrl: string
  readonly processorUrl: string
  readonly monitorUrl: string
  /** As the services read it, with the ports that they got. */
  readonly environment: Environment
  readonly services: readonly Service[]
  close(): Promise<void>
}

/**
 * The services in this process, for the demo, the tests and the benchmarks. A port that is 0, or taken, becomes a free
 * one; every address follows from it.
 */
export async function startInProcess(environment: Environment, deps: Deps = systemDeps): Promise<System> {
  const host = environment.HOST ?? '127.0.0.1'
  const placed = definitions.map((definition) => {
    const variable = portVariable(definition.name)
    return { definition, variable, listener: listenSomewhere(host, environment[variable]) }
  })
  const ports = Object.fromEntries(placed.map(({ variable, listener }) => [variable, String(listener.port)]))
  const settled = { ...environment, ...ports }
  const configured = placed.map(({ definition, listener }) => ({ listener, ...definition.configure(settled) }))
  const services = await Promise.all(configured.map(({ create, listener }) => create(deps, listener)))
  for (const service of services) await service.start()
  const { urls } = gateway.configure(settled).config
  return {
    gatewayUrl: urls.gateway,
    processorUrl: urls.processor,
    monitorUrl: urls.monitor,
    environment: settled,
    services,
    async close() {
      for (const service of services) await service.close()
    },
  }
}

function listenSomewhere(host: string, port: string | undefined): Listener {
  try {
    return listen(host, Number(port ?? 0))
  } catch {
    return listen(host, 0)
  }
}
