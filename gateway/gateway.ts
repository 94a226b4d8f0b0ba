import { openBroker, type ServiceDeps } from '@posta/common/broker/open.ts'
import { asyncApi } from '@posta/common/messages/asyncapi.ts'
import { createHttp } from '@posta/common/service/external-http.ts'
import type { Listener } from '@posta/common/service/listener.ts'
import { defineService } from '@posta/common/service/run.ts'
import { beginService, type Service } from '@posta/common/service/service.ts'
import { createTally } from '@posta/common/service/tally.ts'
import { createTokenVerifier } from '@posta/common/service/tokens.ts'
import { createAccounts } from './accounts/accounts.ts'
import { fixedKeys, openKeys } from './accounts/keys.ts'
import { createPasswords } from './accounts/passwords.ts'
import type { CheckRegistration } from './accounts/register.ts'
import { listRevocations, revokedIn } from './accounts/revocations.ts'
import { openMac } from './accounts/secret.ts'
import type { Throttled } from './accounts/throttle.ts'
import { signCheckpoints } from './audit/checkpoints.ts'
import { tellRefusals } from './audit/refusals.ts'
import { type GatewayConfig, readGatewayConfig } from './config.ts'
import { eventAdder } from './database/events.ts'
import { holdLease } from './database/lease.ts'
import { openDatabase } from './database/open.ts'
import { graphqlRoutes } from './graphql/routes.ts'
import { maintenance } from './maintenance.ts'
import { createGatewayMetrics } from './metrics.ts'
import { createWaiters } from './operations/await-outcome.ts'
import { createRead } from './operations/read.ts'
import { type Completed, receiveResults } from './operations/receive-results.ts'
import { startRelay } from './operations/relay.ts'
import { createSubmit } from './operations/submit.ts'
import { createTell } from './operations/tell.ts'
import { createRates } from './rates/rates.ts'
import { accountRoutes } from './rest/accounts.ts'
import { operationRoutes } from './rest/operations.ts'

/** What gateway takes from outside: besides what every service takes, what it asks of whoever registers. */
export interface GatewayDeps extends ServiceDeps {
  readonly checkRegistration?: CheckRegistration
}

/** Gateway and its components. Read this to see how it hangs together. */
export async function createGateway(config: GatewayConfig, deps: GatewayDeps, listener: Listener): Promise<Service> {
  const { tokenIssuer: issuer } = config
  const { app, log, forbidden, metrics: registry, closing, complete } = beginService('gateway', config, deps)

  const { database, writer, ping, close } = await openDatabase(config.database)
  const passwords = createPasswords()
  const metrics = createGatewayMetrics({ registry, database, writer, passwords })
  const broker = (deps.openBroker ?? openBroker)({ ...config.broker, clientId: 'gateway', log, deps })
  const lease = holdLease({ name: 'relay', database, writer, deps, log })

  const addEvent = eventAdder(deps)
  const keys = config.tokenKeys
    ? fixedKeys(config.tokenKeys)
    : await openKeys({ database, writer, addEvent, encryptionKeys: config.keyEncryptionKeys, log, deps })
  const verify = createTokenVerifier({ issuer, findKey: keys.find, isRevoked: revokedIn(database), deps })
  const throttled = createTally(({ what }: Throttled): Throttled => ({ what }), deps.now)
  const { logIn, ...others } = createAccounts({
    database,
    writer,
    passwords,
    issuer,
    keys,
    mac: await openMac({ database, writer }),
    quotas: config.quotas,
    registrationsPerHour: config.registrationsPerHour,
    checkRegistration: deps.checkRegistration,
    onThrottled: throttled.add,
    addEvent,
    deps,
  })
  const accounts = { ...others, logIn: metrics.logins(logIn) }

  const sources = {
    http: createHttp(deps),
    rates: createRates({ url: config.ratesUrl, deps, log }), // example
  }
  const submit = metrics.submissions(
    createSubmit({
      database,
      writer,
      sources,
      offered: config.offered,
      onAccepted: metrics.accepted,
      quotas: config.quotas,
      deps,
    }),
  )
  const tell = createTell({ database, writer, addEvent, onTold: metrics.told, deps })
  const read = createRead(database)
  const waiters = createWaiters({ database, read, log })
  const onCompleted = (operations: readonly Completed[]) => {
    waiters.wake(operations.map(({ id }) => id))
    metrics.completed(operations)
  }

  const functions = { accounts, onForbidden: forbidden.add, submit, tell, read, waiters, verify, closing }
  app.route('/auth', accountRoutes({ ...functions, config }))
  app.route('/operations', operationRoutes(functions))
  app.route('/graphql', graphqlRoutes({ ...functions, config, log }))
  app.get('/.well-known/jwks.json', async (c) =>
    c.json({ keys: await keys.publicKeys() }, 200, { 'Cache-Control': 'public, max-age=60' }),
  )
  app.get('/.well-known/revocations', async (c) =>
    c.json(await listRevocations(database, deps.now()), 200, { 'Cache-Control': 'no-store' }),
  )
  app.get('/asyncapi.json', (c) => c.json(asyncApi()))

  return complete(listener, {
    description: 'Logs users in, accepts their operations and answers with the results.',
    links: [
      { href: '/graphql', text: 'GraphQL' },
      { href: '/asyncapi.json', text: 'AsyncAPI description' },
    ],
    // Closed from the last to the first: no more results come in, the outbox is sent, and then what both need is closed.
    components: [
      { name: 'database', required: true, check: ping, close },
      { name: 'keys', required: true, check: async () => void (await keys.current()) },
      { name: 'broker', check: broker.ping, close: broker.close },
      { name: 'lease', close: lease.close },
      maintenance({ lease, writer, keys, deps, log }),
      signCheckpoints({ url: config.auditUrl, issuer, database, writer, lease, keys, deps, log }),
      startRelay({ database, writer, lease, broker, log, deps }),
      receiveResults({ broker, writer, onCompleted, onProgressed: waiters.wakeWatchers, log, metrics: registry, deps }),
      ...tellRefusals({ database, writer, addEvent, throttled, forbidden, deps, log }),
    ],
  })
}

export const gateway = defineService({ name: 'gateway', readConfig: readGatewayConfig, create: createGateway })
