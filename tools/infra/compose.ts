import { join } from 'node:path'
import { NAME } from '../../common/name.ts'
import { run } from './build.ts'
import { mongoAnswers } from './ferretdb.ts'
import { kafkaAnswers } from './kafka.ts'
import { answering, environmentFor } from './server.ts'

const file = join(import.meta.dir, '../../docker-compose.yml')
const parts = ['redpanda', 'console', 'mongo']

// What docker-compose.yml publishes on this machine.
const brokerAddress = '127.0.0.1:19092'
// Direct: the name of the replica set's only member resolves nowhere but inside the compose network.
const mongoUrl = 'mongodb://127.0.0.1:27017/?directConnection=true'

const dockerVariables =
  'DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG DOCKER_CERT_PATH DOCKER_TLS_VERIFY XDG_RUNTIME_DIR'.split(' ')
const env = () => environmentFor(dockerVariables)

/** The command for Compose on this machine. Undefined when there is none, or no Docker engine answers. */
export function composeCommand(): string[] | undefined {
  const succeeds = (...command: string[]) =>
    Bun.which(command[0] ?? '') !== null &&
    Bun.spawnSync(command, { env: env(), stdout: 'ignore', stderr: 'ignore', timeout: 5000 }).exitCode === 0
  if (!succeeds('docker', 'info')) return undefined
  if (succeeds('docker', 'compose', 'version')) return ['docker', 'compose']
  return succeeds('docker-compose', 'version') ? ['docker-compose'] : undefined
}

/**
 * Starts the real parts, without the three services, in containers.
 * @param temporary true: as a Compose project of its own, whose data is removed at the end. False: as the project that
 * `docker compose` starts in this repository.
 */
export async function startCompose(command: readonly string[], temporary: boolean) {
  const compose = (...args: string[]) =>
    run([...command, '-f', file, ...(temporary ? ['-p', `${NAME}-temporary`] : []), ...args], { env: env() })
  const stop = async () => void (await (temporary ? compose('down', '--volumes') : compose('stop', ...parts)))
  try {
    await compose('up', '-d', ...parts)
    await answering('Redpanda', brokerAddress, () => kafkaAnswers(brokerAddress))
    await answering('MongoDB', mongoUrl, () => mongoAnswers(mongoUrl))
  } catch (error) {
    await stop().catch(() => {})
    throw error
  }
  return { brokerUrl: `kafka://${brokerAddress}`, mongoUrl, stop }
}
