import { join } from 'node:path'
import { REPOSITORY_ROOT } from '../../common/service/config.ts'
import { systemDeps } from '../../common/service/deps.ts'
import { fileUrl } from '../../common/service/file-url.ts'
import { createGrant } from '../../gateway/accounts/access-tokens.ts'
import { openKeys } from '../../gateway/accounts/keys.ts'
import { eventAdder } from '../../gateway/database/events.ts'
import { openDatabase } from '../../gateway/database/open.ts'
import { freePort, runServer } from '../../tools/infra/server.ts'
import { temporaryFolder } from './measure.ts'

export interface Gateway {
  readonly url: string
  readonly databaseUrl: string
  /** How many transactions it has committed to its database so far. */
  commits(): Promise<number>
  /** An access token of a new user. */
  token(): Promise<string>
  stop(): Promise<void>
}

/** Gateway alone, in a process of its own, on embedded parts in a temporary folder. */
export async function startGateway(): Promise<Gateway> {
  const dataDir = temporaryFolder()
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const environment = { DATA_DIR: dataDir, GATEWAY_PORT: port, RATES_URL: 'bundled:', LOG_LEVEL: 'warn' }
  const server = await runServer({
    name: 'gateway',
    url,
    command: [
      'env',
      ...Object.entries(environment).map(([name, value]) => `${name}=${value}`),
      process.execPath,
      join(REPOSITORY_ROOT, 'gateway/main.ts'),
    ],
    async answers() {
      const { status } = await fetch(`${url}/health/ready`)
      if (status !== 200) throw new Error(`it answers ${status}`)
    },
    folder: dataDir,
    temporary: true,
  })

  const databaseUrl = fileUrl(dataDir, 'gateway.db')
  const { database, writer, close } = await openDatabase({ url: databaseUrl })
  const keys = await openKeys({ database, writer, addEvent: eventAdder(systemDeps), deps: systemDeps })
  const grant = createGrant({ issuer: url, keys, deps: systemDeps })
  return {
    url,
    databaseUrl,
    async commits() {
      const text = await (await fetch(`${url}/metrics`)).text()
      return Number(/^posta_commit_size_count\S* (\d+)$/m.exec(text)?.[1])
    },
    async token() {
      // Gateway trusts a token of its own key: no row of the user, and no hash of a password, is needed for it.
      return (await grant({ id: systemDeps.newId(), role: 'user' }, '')).accessToken
    },
    async stop() {
      await close()
      await server.stop()
    },
  }
}
