import type { Environment } from '../common/service/config.ts'
import { type Deps, systemDeps } from '../common/service/deps.ts'
import { type Listener, listen, type Service } from '../common/service/lifecycle.ts'
import { readGatewayConfig } from '../gateway/config.ts'
import { createGateway } from '../gateway/gateway.ts'
import { readMonitorConfig } from '../monitor/config.ts'
import { createMonitor } from '../monitor/monitor.ts'
import { readProcessorConfig } from '../processor/config.ts'
import { createProcessor } from '../processor/processor.ts'

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
 * The three services in this process, for the demo, the tests and the benchmarks. A port that is 0, or taken, becomes a
 * free one; every address follows from it.
 */
export async function startInProcess(environment: Environment, deps: Deps = systemDeps): Promise<System> {
  const host = environment.HOST ?? '127.0.0.1'
  const ports = {
    GATEWAY_PORT: listenSomewhere(host, environment.GATEWAY_PORT),
    PROCESSOR_PORT: listenSomewhere(host, environment.PROCESSOR_PORT),
    MONITOR_PORT: listenSomewhere(host, environment.MONITOR_PORT),
  }
  const settled = {
    ...environment,
    ...Object.fromEntries(Object.entries(ports).map(([name, { port }]) => [name, String(port)])),
  }
  const gateway = readGatewayConfig(settled)
  const services = await Promise.all([
    createGateway(gateway, deps, ports.GATEWAY_PORT),
    createProcessor(readProcessorConfig(settled), deps, ports.PROCESSOR_PORT),
    createMonitor(readMonitorConfig(settled), deps, ports.MONITOR_PORT),
  ])
  for (const service of services) await service.start()
  return {
    gatewayUrl: gateway.gatewayUrl,
    processorUrl: gateway.processorUrl,
    monitorUrl: gateway.monitorUrl,
    environment: settled,
    services,
    async close() {
      // Whoever sends closes before whoever receives.
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
