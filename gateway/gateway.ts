import { openBroker } from '@posta/common/broker/open.ts'
import { consumerPart } from '@posta/common/consumer/consume.ts'
import { asyncApi } from '@posta/common/messages/asyncapi.ts'
import type { Deps } from '@posta/common/service/deps.ts'
import { addDocs } from '@posta/common/service/docs.ts'
import { healthRoutes } from '@posta/common/service/health.ts'
import { createApp } from '@posta/common/service/http.ts'
import { type Listener, type Service, service } from '@posta/common/service/lifecycle.ts'
import { createLog } from '@posta/common/service/log.ts'
import { createMetrics } from '@posta/common/service/metrics.ts'
import { createTokenVerifier } from '@posta/common/service/tokens.ts'
import { createGrant } from './accounts/access-tokens.ts'
import { createChangePassword } from './accounts/change-password.ts'
import { fixedKeys, openKeys } from './accounts/keys.ts'
import { createLogIn } from './accounts/login.ts'
import { createLogOut } from './accounts/logout.ts'
import { createPasswords } from './accounts/passwords.ts'
import { createRefreshSession } from './accounts/refresh.ts'
import { createRegister } from './accounts/register.ts'
import { createThrottle } from './accounts/throttle.ts'
import { createMe } from './accounts/user.ts'
import { keepCheckpoints } from './audit/checkpoints.ts'
import type { GatewayConfig } from './config.ts'
import { eventAdder } from './database/events.ts'
import { holdLease } from './database/lease.ts'
import { openDatabase } from './database/open.ts'
import { countOutbox } from './database/outbox.ts'
import { graphqlRoutes } from './graphql/routes.ts'
import { createSchema } from './graphql/schema.ts'
import { keepUp } from './maintenance.ts'
import { createGatewayMetrics } from './metrics.ts'
import { createWaiting } from './operations/await-outcome.ts'
import { createRead } from './operations/read.ts'
import { type Completed, receiveResults } from './operations/receive-results.ts'
import { startRelay } from './operations/relay.ts'
import { createSubmit } from './operations/submit.ts'
import { createRates } from './rates/rates.ts'
import { accountRoutes } from './rest/accounts.ts'
import { operationRoutes } from './rest/operations.ts'

export type Accounts = ReturnType<typeof createAccounts>

/** Gateway, from its parts: read this to see how it hangs together. */
export async function createGateway(config: GatewayConfig, deps: Deps, listener: Listener): Promise<Service> {
  const log = createLog('gateway', config.logLevel)
  const registry = createMetrics('gateway')
  const closing = new AbortController()

  const { database, writer, ping, close } = await openDatabase({
    url: config.databaseUrl,
    authToken: config.databaseAuthToken,
  })
  const passwords = createPasswords()
  const metrics = createGatewayMetrics(registry, {
    outboxRows: () => countOutbox(database),
    hashesWaiting: passwords.waiting,
  })
  writer.onCommit(metrics.committed)
  const broker = (deps.openBroker ?? openBroker)({
    url: config.brokerUrl,
    username: config.brokerUsername,
    password: config.brokerPassword,
    clientId: 'gateway',
    log,
    deps,
  })
  const lease = holdLease({ name: 'relay', database, writer, deps, log })
  const addEvent = eventAdder(deps)
  const keys = config.tokenKeys ? fixedKeys(config.tokenKeys) : await openKeys({ database, writer, addEvent, deps })
  const verify = createTokenVerifier({ issuer: config.tokenIssuer, findKey: keys.find, deps })
  const accounts = createAccounts({
    database,
    writer,
    passwords,
    addEvent,
    metrics,
    deps,
    grant: createGrant({ issuer: config.tokenIssuer, keys, deps }),
  })

  const rates = createRates({ url: config.ratesUrl }, deps, log)
  const submit = metrics.submissions(createSubmit({ database, writer, rates, onAccepted: metrics.accepted, deps }))
  const read = createRead(database)
  const waiting = createWaiting({ database, read, log })
  const onCompleted = (operations: readonly Completed[]) => {
    waiting.wake(operations.map(({ id }) => id))
    metrics.completed(operations)
  }
  const relay = startRelay({ database, writer, lease, broker, log, deps })
  const results = consumerPart('results', () =>
    receiveResults({ broker, writer, onCompleted, log, metrics: registry, deps }),
  )
  const upkeep = keepUp({ lease, writer, keys, deps, log })
  const checkpoints = keepCheckpoints({
    url: config.auditUrl,
    issuer: config.tokenIssuer,
    database,
    writer,
    lease,
    keys,
    deps,
    log,
  })

  const app = createApp({ config, log, metrics: registry, deps })
  app.route('/auth', accountRoutes({ accounts, verify, trustedProxies: config.trustedProxies }))
  app.route('/operations', operationRoutes({ submit, read, waiting, verify, closing: closing.signal }))
  app.route(
    '/graphql',
    graphqlRoutes({
      schema: createSchema({ accounts, submit, read, waiting, verify, closing: closing.signal }),
      config,
      log,
    }),
  )
  app.get('/.well-known/jwks.json', async (c) =>
    c.json({ keys: await keys.publicKeys() }, 200, { 'Cache-Control': 'public, max-age=60' }),
  )
  app.get('/asyncapi.json', (c) => c.json(asyncApi()))
  const checks = [
    { name: 'database', required: true, check: ping },
    { name: 'keys', required: true, check: async () => void (await keys.current()) },
    { name: 'broker', required: false, check: () => broker.ping() },
    { name: 'relay', required: false, check: relay.check },
    { name: 'audit', required: false, check: checkpoints.check },
    results,
  ]
  app.route('/health', healthRoutes(checks, closing.signal, log))
  addDocs(app, {
    title: 'Posta gateway',
    description: 'Logs people in, takes their operations and answers them.',
    url: config.gatewayUrl,
    metrics: registry,
  })

  return service({
    name: 'gateway',
    listener,
    app,
    log,
    closing,
    // Closed from the last to the first: no more results, what is committed sent, then what they all stand on.
    parts: [
      { name: 'database', close },
      { name: 'broker', close: () => broker.close() },
      { name: 'lease', close: lease.close },
      upkeep,
      checkpoints,
      { name: 'relay', close: relay.close },
      results,
    ],
  })
}

function createAccounts(
  parts: Omit<Parameters<typeof createLogIn>[0], 'throttle'> & {
    metrics: Pick<ReturnType<typeof createGatewayMetrics>, 'logins'>
    deps: Deps
  },
) {
  const throttle = createThrottle(parts.deps)
  return {
    register: createRegister(parts),
    logIn: parts.metrics.logins(createLogIn({ ...parts, throttle })),
    refreshSession: createRefreshSession(parts),
    logOut: createLogOut(parts),
    changePassword: createChangePassword({ ...parts, throttle }),
    me: createMe(parts.database),
  }
}
