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
import { checkpointRoutes } from './audit/rest.ts'
import { keepRetention } from './audit/retention.ts'
import { createWitnesses } from './audit/trusted-heads.ts'
import { createAudit } from './audit/verify.ts'
import type { MonitorConfig } from './config.ts'
import { dashboard } from './dashboard/dashboard.ts'
import { createDecideMany } from './dead-letters/decide-many.ts'
import { createDecisions } from './dead-letters/decisions.ts'
import { finishDecisions } from './dead-letters/finish-decisions.ts'
import { deadLetterRoutes } from './dead-letters/rest.ts'
import { createAppend } from './events/append.ts'
import { receiveEvents } from './events/receive.ts'
import { routes } from './events/rest.ts'
import { createStats } from './events/stats.ts'
import { createStream } from './events/stream.ts'
import { createTimeline } from './events/timeline.ts'
import { openStore } from './store/open.ts'

/** Monitor, from its parts: read this to see how it hangs together. */
export function createMonitor(config: MonitorConfig, deps: Deps, listener: Listener): Service {
  const log = createLog('monitor', config.logLevel)
  const metrics = createMetrics('monitor')
  const closing = new AbortController()

  const store = openStore(config.storeUrl)
  const { events, deadLetters } = store
  const broker = (deps.openBroker ?? openBroker)({
    url: config.brokerUrl,
    username: config.brokerUsername,
    password: config.brokerPassword,
    clientId: 'monitor',
    log,
    deps,
  })
  const findKey = remoteKeys({ url: config.jwksUrl, deps })
  const verify = createTokenVerifier({ issuer: config.tokenIssuer, findKey, deps })
  const witnesses = createWitnesses({ store, findKey, deps })

  const stream = createStream({ events, deps, log })
  const consumer = consumerPart('events', () =>
    receiveEvents({
      broker,
      append: createAppend(events),
      deadLetters,
      onStored: stream.wake,
      log,
      metrics,
      deps,
    }),
  )

  const decisions = createDecisions({ deadLetters, broker, deps })

  const app = createApp({ config, log, metrics, deps })
  app.route('/', dashboard(config))
  app.route(
    '/',
    routes({
      events,
      timeline: createTimeline(events),
      stats: createStats(events, deps),
      audit: createAudit({ events, witnesses, deps }),
      stream,
      verify,
      closing: closing.signal,
    }),
  )
  app.route('/audit', checkpointRoutes({ checkpoints: store.checkpoints, witnesses, verify }))
  const decideMany = createDecideMany({ deadLetters, decisions, deps })
  app.route('/dead-letters', deadLetterRoutes({ deadLetters, decisions, decideMany, verify }))
  const checks = [
    // Without its store it keeps nothing and loses nothing: the messages wait, and it comes back by itself.
    { name: 'store', required: false, check: () => store.ping() },
    { name: 'broker', required: false, check: () => broker.ping() },
    consumer,
  ]
  app.route('/health', healthRoutes(checks, closing.signal, log))
  addDocs(app, {
    title: 'Posta monitor',
    description: 'Keeps what happened, and puts right what failed.',
    url: config.monitorUrl,
    metrics,
  })

  return service({
    name: 'monitor',
    listener,
    app,
    log,
    closing,
    // Closed from the last to the first: no more messages, then what they go through.
    parts: [
      { name: 'store', close: () => store.close() },
      { name: 'broker', close: () => broker.close() },
      finishDecisions({ deadLetters, decisions, log }),
      keepRetention({ store, witnesses, deps, log }),
      consumer,
    ],
  })
}
