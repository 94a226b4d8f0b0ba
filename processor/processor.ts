import { openBroker, type ServiceDeps } from '@posta/common/broker/open.ts'
import type { Listener } from '@posta/common/service/listener.ts'
import { remoteRevocations } from '@posta/common/service/revocations.ts'
import { defineService } from '@posta/common/service/run.ts'
import { beginService, type Service } from '@posta/common/service/service.ts'
import { createTokenVerifier, remoteKeys } from '@posta/common/service/tokens.ts'
import { storeComponent } from '@posta/common/storage/store-component.ts'
import { type ProcessorConfig, readProcessorConfig } from './config.ts'
import { maintenance } from './maintenance.ts'
import { performers } from './performers/performers.ts'
import { rateRoutes } from './rates.ts'
import { receiveRequests } from './receive-requests.ts'
import { resultRoutes } from './rest.ts'
import { runRoutes } from './runs/rest.ts'
import { createRunner } from './runs/runner.ts'
import { openStore } from './store/store.ts'

/** Processor and its components: read this to see how it hangs together. */
export function createProcessor(config: ProcessorConfig, deps: ServiceDeps, listener: Listener): Service {
  const { bounds, settings } = config
  const { app, log, metrics, complete } = beginService('processor', config, deps)

  const store = openStore(config.storeUrl)
  const { results, runs } = store
  const broker = (deps.openBroker ?? openBroker)({ ...config.broker, clientId: 'processor', log, deps })
  const findKey = remoteKeys({ url: config.jwksUrl, deps })
  const isRevoked = remoteRevocations({ jwksUrl: config.jwksUrl, deps })
  const verify = createTokenVerifier({ issuer: config.tokenIssuer, findKey, isRevoked, deps })

  const runner = createRunner({ runs, results, broker, performers, settings, log, metrics, deps })

  app.route('/results', resultRoutes({ results, verify }))
  app.route('/rates', rateRoutes({ results, verify })) // example
  app.route('/runs', runRoutes({ runs, broker, verify, deps }))

  return complete(listener, {
    description: 'Performs operations, keeps their results, and answers gateway over Kafka.',
    // Closed in the reverse order: first the requests, then what they need. Store and broker are not required: without
    // them HTTP still answers, with a problem where it needs them.
    components: [
      storeComponent(store),
      { name: 'broker', check: broker.ping, close: broker.close },
      maintenance({ results, runs, deps, log }),
      runner,
      receiveRequests({ broker, results, performers, bounds, settings, runs, runner, log, metrics, deps }),
    ],
  })
}

export const processor = defineService({ name: 'processor', readConfig: readProcessorConfig, create: createProcessor })
