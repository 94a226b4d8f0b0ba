import { collectDefaultMetrics, Registry } from 'prom-client'
import { NAME } from '../name.ts'

/** Their source walks through the whole heap, and everyone else waits: 25 to 50 ms for whoever asks for the metrics. */
const COSTLY = [
  'nodejs_heap_space_size_total_bytes',
  'nodejs_heap_space_size_used_bytes',
  'nodejs_heap_space_size_available_bytes',
]

/** A registry of its own per service, so that several can live in one process. */
export function createMetrics(service: string): Registry {
  const registry = new Registry()
  registry.setDefaultLabels({ service_name: `${NAME}-${service}` })
  collectDefaultMetrics({ register: registry })
  for (const name of COSTLY) registry.removeSingleMetric(name)
  return registry
}
