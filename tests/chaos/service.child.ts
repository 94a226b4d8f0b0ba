// A service as a process of a fault run: with its own clock and a faulty broker, which the run changes by IPC.
import { openBroker, type ServiceDeps } from '../../common/broker/open.ts'
import { serviceNames } from '../../common/name.ts'
import { systemDeps } from '../../common/service/deps.ts'
import { defineService, run } from '../../common/service/run.ts'
import { makeFaulty } from './faulty-broker.ts'
import { makeFetchFaulty } from './faulty-fetch.ts'
import type { Order, Trouble } from './orders.ts'
import { createRandom } from './random.ts'
import { safeguards } from './safeguards.ts'

const service = serviceNames.find((name) => name === process.argv[2])
if (!service) throw new Error(`Which service? One of ${serviceNames.join(', ')}.`)
const without = safeguards.find((name) => name === process.env.CHAOS_WITHOUT)
const random = createRandom(process.env.CHAOS_SEED ?? '')

const trouble: Trouble = { killAt: undefined, duplicates: false, otherOrder: false, misread: 0 }
let shiftMs = 0
process.on('message', (order: Order) => {
  if (order.shiftMs !== undefined) shiftMs = order.shiftMs
  Object.assign(trouble, order.trouble)
})
const onMisread = (misread: string) => void process.send?.({ misread })

const deps: ServiceDeps = {
  ...systemDeps,
  fetch: makeFetchFaulty(systemDeps.fetch, { provider: process.env.PAYOUT_URL, trouble, random }),
  now: () => Date.now() + shiftMs,
  openBroker: (options) => makeFaulty(openBroker(options), { service, trouble, random, without, onMisread }),
}

// Each process loads its own service alone.
const load = {
  gateway: async () => {
    const { createGateway, gateway } = await import('../../gateway/gateway.ts')
    if (without !== 'lease') return gateway
    const { readGatewayConfig } = await import('../../gateway/config.ts')
    const { relayWithoutLease } = await import('./relay-without-lease.ts')
    return defineService({
      name: 'gateway',
      readConfig: readGatewayConfig,
      async create(config, given, listener) {
        await relayWithoutLease(config, deps)
        return createGateway(config, given, listener)
      },
    })
  },
  processor: async () => {
    const { hurryPayouts } = await import('./hurried-payouts.ts')
    hurryPayouts({ recorded: without !== 'record' })
    return (await import('../../processor/processor.ts')).processor
  },
  monitor: async () => (await import('../../monitor/monitor.ts')).monitor,
}

await run(await load[service](), deps)
