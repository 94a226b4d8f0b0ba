import type { ServiceName } from '../name.ts'
import { type CommonConfig, ConfigError, type Environment, portVariable } from './config.ts'
import { type Deps, systemDeps } from './deps.ts'
import { type Listener, listenAsConfigured } from './listener.ts'
import type { Service } from './service.ts'
import { onStopSignal } from './stop-signal.ts'

/** One of the services, as its process, the demo and the tests know it. */
export interface ServiceDefinition {
  readonly name: ServiceName
  /** @throws ConfigError with every fault. */
  configure(environment: Environment): ConfiguredService
}

export interface ConfiguredService {
  readonly config: CommonConfig
  create(deps: Deps, listener: Listener): Promise<Service>
}

/**
 * Describes a service: its name, how it reads its configuration, and how it is made of it.
 * @example
 * export const processor = defineService({ name: 'processor', readConfig: readProcessorConfig, create: createProcessor })
 */
export function defineService<Config extends CommonConfig>(options: {
  name: ServiceName
  readConfig: (environment: Environment) => Config
  create: (config: Config, deps: Deps, listener: Listener) => Promise<Service> | Service
}): ServiceDefinition {
  const { name, readConfig, create } = options
  return {
    name,
    configure(environment) {
      const config = readConfig(environment)
      return { config, create: async (deps, listener) => create(config, deps, listener) }
    },
  }
}

/**
 * Runs a service as a process, from reading the environment to the exit. Configuration that cannot work ends it with code 1
 * and one message with every fault. SIGTERM or SIGINT closes the service; a second one ends the process at once.
 * @example
 * await run(gateway)
 */
export async function run({ name, configure }: ServiceDefinition, deps: Deps = systemDeps): Promise<void> {
  try {
    let configured = configure(process.env)
    const variable = portVariable(name)
    const listener = listenAsConfigured(configured.config, variable)
    // The system chose the port, and the service's address follows from it.
    if (configured.config.port === 0) configured = configure({ ...process.env, [variable]: String(listener.port) })
    const service = await configured.create(deps, listener)
    onStopSignal(() => void service.close())
    // The process that started this one is gone.
    process.on('disconnect', () => void service.close())
    await service.start()
    process.send?.({ ready: configured.config.urls[name] })
    await service.ended.catch(async (error: unknown) => {
      await service.close()
      throw error
    })
    process.exit(0)
  } catch (error) {
    console.error(error instanceof ConfigError ? error.message : error)
    process.exit(1)
  }
}
