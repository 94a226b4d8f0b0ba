import { openBroker, type ServiceDeps } from '../../common/broker/open.ts'
import { createLog } from '../../common/service/log.ts'
import type { GatewayConfig } from '../../gateway/config.ts'
import { holdLease } from '../../gateway/database/lease.ts'
import { openDatabase } from '../../gateway/database/open.ts'
import { startRelay } from '../../gateway/operations/relay.ts'

/** Starts another relay in this gateway, under a lease of its own, as if there were none. It ends with the process. */
export async function relayWithoutLease(config: GatewayConfig, deps: ServiceDeps): Promise<void> {
  const log = createLog('gateway', config.logLevel)
  const { database, writer } = await openDatabase(config.database)
  const broker = (deps.openBroker ?? openBroker)({ ...config.broker, clientId: 'gateway', log, deps })
  const lease = holdLease({ name: deps.newId(), database, writer, deps, log })
  startRelay({ database, writer, lease, broker, log, deps })
}
