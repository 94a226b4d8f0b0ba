import { openBroker, type ServiceDeps } from '../../common/broker/open.ts'
import { createLog } from '../../common/service/log.ts'
import type { GatewayConfig } from '../../gateway/config.ts'
import { holdLease } from '../../gateway/database/lease.ts'
import { openDatabase } from '../../gateway/database/open.ts'
import { startRelay } from '../../gateway/operations/relay.ts'

/** A second relay in this gateway, under a lease that nobody else knows: as without one. It ends with the process. */
export async function relayWithoutLease(config: GatewayConfig, deps: ServiceDeps): Promise<void> {
  const log = createLog('gateway', config.logLevel)
  const { database, writer } = await openDatabase(config.database)
  const broker = (deps.openBroker ?? openBroker)({ ...config.broker, clientId: 'gateway', log, deps })
  const lease = holdLease({ name: deps.newId(), database, writer, deps, log })
  startRelay({ database, writer, lease, broker, log, deps })
}
