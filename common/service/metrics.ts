import { collectDefaultMetrics, Registry } from 'prom-client'
import { NAME } from '../name.ts'

/** Reading these walks through the whole heap and stops the process for 25 to 50 ms, each time someone asks for the metrics. */
const COSTLY = [
  'nodejs_heap_space_size_total_bytes',
  'nodejs_heap_space_size_used_bytes',
  'nodejs_heap_space_size_available_bytes',
]

/** Each service has its own registry, so that several services can run in one process. */
export function createMetrics(service: string): Registry {
  const registry = new Registry()
  registry.setDefaultLabels({ service_name: `${NAME}-${service}` })
  collectDefaultMetrics({ register: registry })
  for (const name of COSTLY) registry.removeSingleMetric(name)
  return registry
}
