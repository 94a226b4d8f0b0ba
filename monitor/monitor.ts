import { openBroker, type ServiceDeps } from '@posta/common/broker/open.ts'
import type { Listener } from '@posta/common/service/listener.ts'
import { remoteRevocations } from '@posta/common/service/revocations.ts'
import { defineService } from '@posta/common/service/run.ts'
import { beginService, type Service } from '@posta/common/service/service.ts'
import { createTokenVerifier, remoteKeys } from '@posta/common/service/tokens.ts'
import { storeComponent } from '@posta/common/storage/store-component.ts'
import { auditRoutes } from './audit/rest.ts'
import { retention } from './audit/retention.ts'
import { createSignedCheckpoints } from './audit/signed-checkpoints.ts'
import { createAudit } from './audit/verify.ts'
import { type MonitorConfig, readMonitorConfig } from './config.ts'
import { dashboard } from './dashboard/dashboard.ts'
import { createDecideMany } from './dead-letters/decide-many.ts'
import { createDecisions } from './dead-letters/decisions.ts'
import { finishDecisions } from './dead-letters/finish-decisions.ts'
import { deadLetterRoutes } from './dead-letters/rest.ts'
import { createAppend } from './events/append.ts'
import { receiveEvents } from './events/receive.ts'
import { eventRoutes } from './events/rest.ts'
import { createStats } from './events/stats.ts'
import { createStream } from './events/stream.ts'
import { createTimeline } from './events/timeline.ts'
import { openStore } from './store/store.ts'

/** Monitor: what it consists of, and how its components are connected. */
export function createMonitor(config: MonitorConfig, deps: ServiceDeps, listener: Listener): Service {
  const { app, log, metrics, closing, complete } = beginService('monitor', config, deps)

  const store = openStore(config.storeUrl)
  const { events, deadLetters, checkpoints } = store
  const broker = (deps.openBroker ?? openBroker)({ ...config.broker, clientId: 'monitor', log, deps })
  const findKey = remoteKeys({ url: config.jwksUrl, deps })
  const isRevoked = remoteRevocations({ jwksUrl: config.jwksUrl, deps })
  const verify = createTokenVerifier({ issuer: config.tokenIssuer, findKey, isRevoked, deps })
  const signedCheckpoints = createSignedCheckpoints({ store, findKey, deps })
  const { trustedHeads } = signedCheckpoints
  const stream = createStream({ events, deps, log })
  const decisions = createDecisions({ deadLetters, broker, deps })
  const decideMany = createDecideMany({ deadLetters, decisions, deps })

  app.route('/', dashboard(config.urls))
  app.route(
    '/',
    eventRoutes({
      events,
      timeline: createTimeline(events),
      stats: createStats(events, deps),
      stream,
      verify,
      closing,
    }),
  )
  const audit = createAudit({ events, trustedHeads, deps })
  app.route('/audit', auditRoutes({ audit, checkpoints, signedCheckpoints, verify }))
  app.route('/dead-letters', deadLetterRoutes({ deadLetters, decisions, decideMany, verify }))

  return complete(listener, {
    description: 'Keeps what happened. Operators see it live, and redrive or discard the messages that failed.',
    // They close from the last to the first: the consumer before what it writes to. None is required: while the store is
    // down, the messages wait at the broker.
    components: [
      storeComponent(store),
      { name: 'broker', check: broker.ping, close: broker.close },
      finishDecisions({ deadLetters, decisions, log }),
      retention({ store, trustedHeads, deps, log }),
      receiveEvents({ broker, append: createAppend(events), deadLetters, onStored: stream.wake, log, metrics, deps }),
    ],
  })
}

export const monitor = defineService({ name: 'monitor', readConfig: readMonitorConfig, create: createMonitor })
