import { collectDefaultMetrics, Registry } from 'prom-client'
import { NAME } from '../name.ts'

/** A registry of its own per service, so that several can live in one process. */
export function createMetrics(service: string): Registry {
  const registry = new Registry()
  registry.setDefaultLabels({ service_name: `${NAME}-${service}` })
  collectDefaultMetrics({ register: registry })
  return registry
}
