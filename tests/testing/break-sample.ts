import { openBroker } from '../../common/broker/open.ts'
import { systemDeps } from '../../common/service/deps.ts'
import { listen } from '../../common/service/listener.ts'
import { createLog } from '../../common/service/log.ts'
import { createMetrics } from '../../common/service/metrics.ts'
import type { Service } from '../../common/service/service.ts'
import { sample } from '../../common/testing/sample.ts'
import { readProcessorConfig } from '../../processor/config.ts'
import { performers } from '../../processor/performers/performers.ts'
import { createProcessor } from '../../processor/processor.ts'
import { receiveRequests } from '../../processor/receive-requests.ts'
import { openStore } from '../../processor/store/store.ts'
import type { System } from '../../tools/in-process.ts'

/**
 * Replaces the system's processor by one whose performer of `sample` always throws, and whose attempts follow each other quickly.
 * Resolves to a function that starts a working processor again.
 */
export async function breakSample({ services, environment }: System): Promise<() => Promise<Service>> {
  await services.find(({ name }) => name === 'processor')?.close()
  const config = readProcessorConfig(environment)
  const log = createLog('processor', 'silent')
  const broker = openBroker({ ...config.broker, clientId: 'processor', log, deps: systemDeps })
  const store = openStore(config.storeUrl)
  const requests = receiveRequests({
    broker,
    results: store.results,
    performers: {
      ...performers,
      [sample.type]: {
        decide() {
          throw new Error('It was released too early.')
        },
      },
    },
    bounds: config.bounds,
    settings: config.settings,
    runs: store.runs,
    // It has no runs.
    runner: { async admit() {}, wake() {} },
    firstPauseMs: 1,
    log,
    metrics: createMetrics('processor'),
    deps: systemDeps,
  })
  await requests.start()
  return async () => {
    for (const each of [requests, broker, store]) await each.close()
    const working = createProcessor(config, systemDeps, listen(config.host, config.port))
    await working.start()
    return working
  }
}
