import { openBroker } from '../../common/broker/open.ts'
import { systemDeps } from '../../common/service/deps.ts'
import { listen } from '../../common/service/listener.ts'
import { createLog } from '../../common/service/log.ts'
import { createMetrics } from '../../common/service/metrics.ts'
import type { Service } from '../../common/service/service.ts'
import { readProcessorConfig } from '../../processor/config.ts'
import { performers } from '../../processor/performers/performers.ts'
import { createProcessor } from '../../processor/processor.ts'
import { receiveRequests } from '../../processor/receive-requests.ts'
import { openResults } from '../../processor/results/open.ts'
import type { System } from '../../tools/in-process.ts'

/**
 * Puts a processor in the place of the system's whose `convert` always throws, and waits no longer than needed between
 * its attempts. What it returns puts the right one back.
 */
export async function breakProcessor(system: System): Promise<() => Promise<Service>> {
  await system.services.find(({ name }) => name === 'processor')?.close()
  const { broker: brokerConfig, storeUrl, bounds, host, port } = readProcessorConfig(system.environment)
  const log = createLog('processor', 'silent')
  const broker = openBroker({ ...brokerConfig, clientId: 'processor', log, deps: systemDeps })
  const results = openResults(storeUrl)
  const broken = receiveRequests({
    broker,
    results,
    performers: {
      ...performers,
      convert: {
        decide() {
          throw new Error('It was released too early.')
        },
      },
    },
    bounds,
    firstPauseMs: 1,
    log,
    metrics: createMetrics('processor'),
    deps: systemDeps,
  })
  await broken.start()
  return async () => {
    await broken.close()
    await broker.close()
    await results.close()
    const repaired = createProcessor(readProcessorConfig(system.environment), systemDeps, listen(host, port))
    await repaired.start()
    return repaired
  }
}
