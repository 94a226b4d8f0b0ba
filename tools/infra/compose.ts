import { join } from 'node:path'
import { run } from './build.ts'
import { mongoAnswers } from './ferretdb.ts'
import { kafkaAnswers } from './kafka.ts'
import { answering, environmentFor } from './server.ts'

const file = join(import.meta.dir, '../../docker-compose.yml')
const parts = ['redpanda', 'console', 'mongo']

// What docker-compose.yml publishes on this machine.
const brokerAddress = '127.0.0.1:19092'
// Direct, since the replica set's only member has a name that resolves inside the compose network alone.
const mongoUrl = 'mongodb://127.0.0.1:27017/?directConnection=true'

const dockerVariables = [
  'DOCKER_HOST',
  'DOCKER_CONTEXT',
  'DOCKER_CONFIG',
  'DOCKER_CERT_PATH',
  'DOCKER_TLS_VERIFY',
  'XDG_RUNTIME_DIR',
]
const env = () => environmentFor(dockerVariables)

/** The command that speaks Compose here, if there is one and an engine answers it. */
export function composeCommand(): string[] | undefined {
  const succeeds = (...command: string[]) =>
    Bun.which(command[0] ?? '') !== null &&
    Bun.spawnSync(command, { env: env(), stdout: 'ignore', stderr: 'ignore', timeout: 5000 }).exitCode === 0
  if (!succeeds('docker', 'info')) return undefined
  if (succeeds('docker', 'compose', 'version')) return ['docker', 'compose']
  return succeeds('docker-compose', 'version') ? ['docker-compose'] : undefined
}

/**
 * Starts the real parts in containers, the three services not among them. What is temporary is a project of its own,
 * whose data is removed at the end; otherwise it is the one that `docker compose` starts in this repository.
 */
export async function startCompose(command: readonly string[], temporary: boolean) {
  const compose = [...command, '-f', file, ...(temporary ? ['-p', 'posta-temporary'] : [])]
  const stop = async () => {
    if (temporary) await run([...compose, 'down', '--volumes'], { env: env() })
    else await run([...compose, 'stop', ...parts], { env: env() })
  }
  try {
    await run([...compose, 'up', '-d', ...parts], { env: env() })
    await answering('Redpanda', brokerAddress, () => kafkaAnswers(brokerAddress))
    await answering('MongoDB', mongoUrl, () => mongoAnswers(mongoUrl))
  } catch (error) {
    await stop().catch(() => {})
    throw error
  }
  return { brokerUrl: `kafka://${brokerAddress}`, mongoUrl, stop }
}
