// A service as a process of a fault run: its own clock, its own broker, and orders by IPC from the run that started it.

import { openBroker } from '../../common/broker/open.ts'
import { serviceNames } from '../../common/name.ts'
import { type Deps, systemDeps } from '../../common/service/deps.ts'
import { run } from '../../common/service/lifecycle.ts'
import { breakBroker, type Trouble } from './broken-broker.ts'
import type { Order, Report } from './fleet.ts'
import { createRandom } from './random.ts'
import { safeguards } from './safeguards.ts'

const service = serviceNames.find((name) => name === process.argv[2])
if (!service) throw new Error(`Which service? One of ${serviceNames.join(', ')}.`)
const without = safeguards.find((name) => name === process.env.CHAOS_WITHOUT)

const trouble: Trouble = { killAt: undefined, duplicates: false, otherOrder: false, misread: 0 }
let shiftMs = 0
process.on('message', (order: Order) => {
  if (order.shiftMs !== undefined) shiftMs = order.shiftMs
  Object.assign(trouble, order.trouble)
})
const report = (said: Report) => process.send?.(said)

const deps: Deps = {
  ...systemDeps,
  now: () => Date.now() + shiftMs,
  openBroker: (options) =>
    breakBroker(openBroker(options), {
      service,
      trouble,
      random: createRandom(process.env.CHAOS_SEED ?? ''),
      without,
      onMisread: (misread) => report({ misread }),
    }),
}

// Each process loads its own service alone.
switch (service) {
  case 'gateway': {
    const [{ readGatewayConfig }, { createGateway }, { relayWithoutLease }] = await Promise.all([
      import('../../gateway/config.ts'),
      import('../../gateway/gateway.ts'),
      import('./relay-without-lease.ts'),
    ])
    await run({
      portVariable: 'GATEWAY_PORT',
      readConfig: readGatewayConfig,
      async create(config, listener) {
        if (without === 'lease') await relayWithoutLease(config, deps)
        return createGateway(config, deps, listener)
      },
    })
    break
  }
  case 'processor': {
    const [{ readProcessorConfig }, { createProcessor }] = await Promise.all([
      import('../../processor/config.ts'),
      import('../../processor/processor.ts'),
    ])
    await run({
      portVariable: 'PROCESSOR_PORT',
      readConfig: readProcessorConfig,
      create: (config, listener) => createProcessor(config, deps, listener),
    })
    break
  }
  case 'monitor': {
    const [{ readMonitorConfig }, { createMonitor }] = await Promise.all([
      import('../../monitor/config.ts'),
      import('../../monitor/monitor.ts'),
    ])
    await run({
      portVariable: 'MONITOR_PORT',
      readConfig: readMonitorConfig,
      create: (config, listener) => createMonitor(config, deps, listener),
    })
    break
  }
}
