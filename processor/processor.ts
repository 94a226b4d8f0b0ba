import { openBroker } from '@posta/common/broker/open.ts'
import { consumerPart } from '@posta/common/consumer/consume.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { addDocs } from '@posta/common/service/docs.ts'
import { healthRoutes } from '@posta/common/service/health.ts'
import { createApp } from '@posta/common/service/http.ts'
import { type Listener, type Service, service } from '@posta/common/service/lifecycle.ts'
import { createLog } from '@posta/common/service/log.ts'
import { createMetrics } from '@posta/common/service/metrics.ts'
import { createTokenVerifier, remoteKeys } from '@posta/common/service/tokens.ts'
import type { ProcessorConfig } from './config.ts'
import { keepUp } from './maintenance.ts'
import { performers } from './performers/performers.ts'
import { receiveRequests } from './receive-requests.ts'
import { rateRoutes, resultRoutes } from './rest.ts'
import { openResults } from './results/open.ts'

/** Processor, from its parts: read this to see how it hangs together. */
export function createProcessor(config: ProcessorConfig, deps: Deps, listener: Listener): Service {
  const { dailyLimitUsdE8 } = config
  const log = createLog('processor', config.logLevel)
  const metrics = createMetrics('processor')
  const closing = new AbortController()

  const results = openResults(config.storeUrl)
  const broker = (deps.openBroker ?? openBroker)({
    url: config.brokerUrl,
    username: config.brokerUsername,
    password: config.brokerPassword,
    clientId: 'processor',
    log,
    deps,
  })
  const requests = consumerPart('requests', () =>
    receiveRequests({ broker, results, performers, dailyLimitUsdE8, log, metrics, deps }),
  )
  const verify = createTokenVerifier({
    issuer: config.tokenIssuer,
    findKey: remoteKeys({ url: config.jwksUrl, deps }),
    deps,
  })

  const app = createApp({ config, log, metrics, deps })
  app.route('/results', resultRoutes({ results, verify }))
  app.route('/rates', rateRoutes({ results, verify }))
  // Without its store or its broker it still answers, if only that it cannot now: neither takes it out of service.
  const checks = [
    { name: 'store', required: false, check: results.ping },
    { name: 'broker', required: false, check: () => broker.ping() },
    requests,
  ]
  app.route('/health', healthRoutes(checks, closing.signal, log))
  addDocs(app, {
    title: 'Posta processor',
    description: 'Performs operations, keeps their results and the rate tables, and answers gateway over Kafka.',
    url: config.processorUrl,
    metrics,
  })

  return service({
    name: 'processor',
    listener,
    app,
    log,
    closing,
    // Closed from the last to the first: no more requests, then what they stand on.
    parts: [
      { name: 'store', close: results.close },
      { name: 'broker', close: () => broker.close() },
      keepUp({ results, deps, log }),
      requests,
    ],
  })
}
